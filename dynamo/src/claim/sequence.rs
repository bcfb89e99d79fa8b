//! Taking turns: the order of a ring that starts from nothing, and of members that take partitions from others.

use super::polish::Random;

/// Puts `counts[i]` turns of each i on a circle of Σ counts places, each i as evenly as possible.
///
/// Turn j of item i is due at (j + i/k) / counts\[i\] of the circle, k items in all; turns are taken in the order in
/// which they are due. Items with equal counts keep one order all the way round; an item with one turn more overtakes
/// each of the others once, at places as far apart as the phases i/k are, so that no two turns of an item come much
/// closer than k places.
pub(super) fn sequence(counts: &[usize]) -> Vec<usize> {
    let k = counts.len();
    let mut turns: Vec<(usize, usize)> =
        counts.iter().enumerate().flat_map(|(item, &count)| (0..count).map(move |turn| (item, turn))).collect();
    let due = |(item, turn): (usize, usize)| ((turn * k + item) as u64, counts[item] as u64);
    turns.sort_by(|&a, &b| {
        let ((a_num, a_den), (b_num, b_den)) = (due(a), due(b));
        (a_num * b_den).cmp(&(b_num * a_den)).then(a.0.cmp(&b.0))
    });
    turns.into_iter().map(|(item, _)| item).collect()
}

/// Like [`sequence`], but in ever different order, as far as two turns of an item can stay `distance` places apart.
///
/// In a fixed order the same few members would always be each other's neighbours: one of them would stand in for a
/// whole failed neighbour, and could take over none of its partitions when that leaves for good. So each place is
/// drawn from the items that have no turn nearby and are about due.
pub(super) fn shuffled(counts: &[usize], distance: usize, random: &mut Random) -> Vec<usize> {
    let places: usize = counts.iter().sum();
    // Turns of the item that has most cannot all be farther apart than this; a few may be nearer by rounding.
    let most = counts.iter().copied().max().unwrap_or_default().max(1);
    let distance = distance.min(counts.len().min((places + most / 8) / most).saturating_sub(1));
    let mut given = vec![0; counts.len()];
    let mut order: Vec<usize> = Vec::with_capacity(places);
    while order.len() < places {
        let place = order.len();
        // Twice the places by which the next turn of an item is late, if positive, or early.
        let late = |item: usize| (2 * place) as i64 - ((2 * given[item] + 1) * places / counts[item]) as i64;
        // By how much it may be late or early, in the same measure.
        let slack = |item: usize| 3 * (places / counts[item]).saturating_sub(distance) as i64;
        let apart = |item: usize| {
            let before = order[place - distance.min(place)..].contains(&item);
            let after = (place + distance).saturating_sub(places);
            !before && !order[..after.min(place)].contains(&item)
        };
        let open: Vec<usize> = (0..counts.len()).filter(|&item| given[item] < counts[item]).collect();
        let mut fitting: Vec<usize> = open.iter().copied().filter(|&item| apart(item)).collect();
        if fitting.is_empty() {
            fitting = open;
        }
        let is_overdue = |&item: &usize| late(item) > slack(item);
        let is_soon = |&item: &usize| late(item) >= -slack(item);
        let latest =
            |items: &[usize]| items.iter().copied().max_by_key(|&item| (late(item), std::cmp::Reverse(item)));
        let overdue: Vec<usize> = fitting.iter().copied().filter(is_overdue).collect();
        let soon: Vec<usize> = fitting.iter().copied().filter(is_soon).collect();
        let item = match (latest(&overdue), soon.len()) {
            (Some(item), _) => item,
            (None, 0) => latest(&fitting).unwrap_or_default(),
            (None, drawn) => soon[random.below(drawn)],
        };
        given[item] += 1;
        order.push(item);
    }
    order
}
