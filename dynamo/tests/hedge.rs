//! Hedging: the estimate of the usual time against sorted samples, the budget against a count.

use dynamo::hedge::{Budget, Quantile};
use proptest::prelude::*;
use std::time::Duration;

proptest! {
    /// After many samples of one distribution about as many are above the estimate as should be.
    #[test]
    fn the_estimate_finds_its_quantile(low in 50u64..5_000, spread in 1u64..20_000, seed: u64) {
        let mut random = seed | 1;
        let mut draw = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            Duration::from_micros(low + (random >> 11) % spread)
        };
        let mut p95 = Quantile::new(0.95, Duration::from_millis(50));
        (0..4_000).for_each(|_| p95.add(draw()));
        let mut above = 0;
        for _ in 0..4_000 {
            let sample = draw();
            above += u32::from(sample > p95.get());
            p95.add(sample);
        }
        prop_assert!((100..=300).contains(&above), "{above} of 4000 above the 95th percentile");
    }

    /// However requests and attempts mix, no more is spent than was saved up and earned, and if there is, it may be.
    #[test]
    fn no_more_is_spent_than_the_budget(attempts in prop::collection::vec(any::<bool>(), 0..2_000)) {
        let mut budget = Budget::new(0.03, 10.0);
        let (mut made, mut spent) = (0u32, 0u32);
        for attempt in attempts {
            if attempt {
                spent += u32::from(budget.spend());
            } else {
                budget.earn();
                made += 1;
            }
            prop_assert!(f64::from(spent) <= 10.0 + 0.03 * f64::from(made) + 1e-6);
        }
        (0..40).for_each(|_| budget.earn());
        prop_assert!(budget.spend());
    }
}

#[test]
fn a_slow_spell_uses_the_savings_up_and_then_keeps_to_three_percent() {
    let mut budget = Budget::new(0.03, 10.0);
    let spent = (0..10_000).filter(|_| { budget.earn(); budget.spend() }).count();
    assert!((300..=310).contains(&spent), "{spent}");
}
