//! When it is worth a try to deliver the hints for a member.
//!
//! Hints for a member that is away may be many, and to go through them takes long. Once that was done in vain they are left
//! alone until something has changed that lets them be delivered; and tried now and then all the same, since not everything
//! that can fail is seen from here.

use dynamo::preference::MemberIndex;
use dynamo::ring::RingView;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// After tries in vain the pause doubles until it is so many times the first one.
const PAUSES_MAX: u32 = 32;

/// What decides whether hints for a member can be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// Partitions that it holds; hints of all others go to their holders.
    held: Vec<u32>,
    /// Who is reached of those that its hints may go to.
    reached: Vec<MemberIndex>,
}

impl Surroundings {
    pub(super) fn of(view: &RingView, target: Uuid, is_reached: impl Fn(MemberIndex) -> bool) -> Self {
        let ring = view.ring();
        let member = ring.member_by_incarnation(target).map(|member| member.index);
        let names = |partition: &u32| {
            view.placement(*partition)
                .is_some_and(|placement| member.is_some_and(|member| placement.names(member)))
        };
        let asked = ring.members.iter().map(|member| member.index);
        Self {
            held: (0..view.count().get()).filter(names).collect(),
            reached: asked
                .filter(|&index| member.is_none_or(|member| member == index) && is_reached(index))
                .collect(),
        }
    }

    /// Whether there is anybody to deliver to.
    pub(super) fn is_reached(&self) -> bool {
        !self.reached.is_empty()
    }
}

/// How a walk over the hints for a member went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Walked {
    /// Hints that arrived, and are held no longer.
    pub(super) delivered: u64,
    /// When the oldest of the others was written, in milliseconds since 1970.
    pub(super) oldest_ms: Option<u64>,
}

/// The members that hints are held for, and how the last walk over those of each went.
pub(super) struct Tries {
    pause: Duration,
    of: BTreeMap<Uuid, Try>,
}

struct Try {
    under_way: bool,
    /// How things stood when it began.
    seen: Surroundings,
    pause: Duration,
    /// When the next one is due, if nothing changes.
    next: Instant,
    oldest_ms: Option<u64>,
}

impl Tries {
    /// `pause`: between two walks, if the first was not in vain.
    pub(super) fn new(pause: Duration) -> Self {
        Self { pause, of: BTreeMap::new() }
    }

    /// Forgets members that no hints are held for any more.
    pub(super) fn keep(&mut self, targets: &BTreeSet<Uuid>) {
        self.of.retain(|target, one| one.under_way || targets.contains(target));
    }

    /// Whether a walk is to begin now. If so, it has.
    pub(super) fn begin(&mut self, target: Uuid, seen: Surroundings, now: Instant) -> bool {
        let (mut pause, mut oldest_ms) = (self.pause, None);
        if let Some(last) = self.of.get(&target) {
            let same = last.seen == seen;
            if last.under_way || (same && now < last.next) {
                return false;
            }
            (pause, oldest_ms) = (if same { last.pause } else { pause }, last.oldest_ms);
        }
        self.of.insert(target, Try { under_way: true, seen, pause, next: now, oldest_ms });
        true
    }

    /// A walk that has begun is over.
    pub(super) fn ended(&mut self, target: Uuid, walked: Walked, now: Instant) {
        let Some(this) = self.of.get_mut(&target) else { return };
        this.under_way = false;
        this.oldest_ms = walked.oldest_ms;
        this.next = now + this.pause;
        this.pause = if walked.delivered > 0 { self.pause } else { (this.pause * 2).min(self.pause * PAUSES_MAX) };
    }

    /// When the oldest hint was written that a walk has left where it was.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        self.of.values().filter_map(|one| one.oldest_ms).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(500);
    const IN_VAIN: Walked = Walked { delivered: 0, oldest_ms: Some(7) };

    fn seen(held: &[u32], reached: &[u16]) -> Surroundings {
        Surroundings { held: held.to_vec(), reached: reached.iter().map(|&index| MemberIndex(index)).collect() }
    }

    /// How many walks begin within a time, each of which ends at once.
    fn walks(tries: &mut Tries, now: &mut Instant, seconds: u64, seen: &Surroundings, walked: Walked) -> usize {
        let until = *now + Duration::from_secs(seconds);
        let mut begun = 0;
        while *now < until {
            if tries.begin(Uuid::nil(), seen.clone(), *now) {
                tries.ended(Uuid::nil(), walked, *now);
                begun += 1;
            }
            *now += PAUSE;
        }
        begun
    }

    #[test]
    fn hints_for_who_is_away_are_hardly_ever_looked_at() {
        let (mut tries, mut now) = (Tries::new(PAUSE), Instant::now());
        let away = seen(&[1, 2], &[]);
        let first = walks(&mut tries, &mut now, 60, &away, IN_VAIN);
        assert!((4..=9).contains(&first), "{first} in the first minute");
        let later = walks(&mut tries, &mut now, 600, &away, IN_VAIN);
        assert!((36..=39).contains(&later), "{later} in ten minutes");
        assert_eq!(tries.oldest_ms(), Some(7));
    }

    #[test]
    fn whatever_lets_them_be_delivered_has_them_tried_at_once_and_as_often_as_before() {
        for changed in [seen(&[1, 2], &[0]), seen(&[1], &[])] {
            let (mut tries, mut now) = (Tries::new(PAUSE), Instant::now());
            let _ = walks(&mut tries, &mut now, 600, &seen(&[1, 2], &[]), IN_VAIN);
            assert!(tries.begin(Uuid::nil(), changed.clone(), now), "{changed:?}");
            assert!(!tries.begin(Uuid::nil(), changed.clone(), now), "one walk at a time");
            tries.ended(Uuid::nil(), Walked { delivered: 1, oldest_ms: None }, now);
            now += PAUSE;
            assert_eq!(walks(&mut tries, &mut now, 10, &changed, Walked { delivered: 1, oldest_ms: None }), 20);
        }
    }

    #[test]
    fn who_has_none_left_is_forgotten_unless_a_walk_is_under_way() {
        let (mut tries, now) = (Tries::new(PAUSE), Instant::now());
        assert!(tries.begin(Uuid::nil(), seen(&[], &[]), now));
        tries.keep(&BTreeSet::new());
        assert!(!tries.begin(Uuid::nil(), seen(&[3], &[0]), now), "it is still under way");
        tries.ended(Uuid::nil(), IN_VAIN, now);
        tries.keep(&BTreeSet::new());
        assert_eq!(tries.oldest_ms(), None);
        assert!(tries.begin(Uuid::nil(), seen(&[], &[]), now), "what comes next is new");
    }
}
