//! Whether what a key holds can have come of the commands that were sent and answered.

use super::{Change, Command, Held, Told, change_of};
use crate::shared::Shared;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Most commands of which each may count or not; beyond that there are too many sums to look through.
const FREE_MAX: usize = 26;

/// Looks at what a read has shown that began at this time. Without fallbacks, reads see what was acknowledged before.
pub fn read(shared: &Shared, key: &Bytes, held: &Held, began: Duration) {
    if shared.scenario.quorums.sloppy {
        return;
    }
    let changes = shared.changes.lock().clone();
    let changes: Vec<&Change> = changes.iter().filter(|change| change.key == *key).collect();
    let what = match held {
        Held::Value(value) => counted(&increments(&changes), value.as_ref(), Some(began)),
        Held::Members(members) => {
            let members: BTreeSet<&Bytes> = members.iter().collect();
            names(&changes).find_map(|name| {
                let stays = must_be_there(&changes, name, Some(began));
                (stays && !members.contains(name)).then(|| format!("{name:?} is not there"))
            })
        }
        Held::Fields(_) => None,
    };
    if let Some(what) = what {
        shared.find("changes-are-read", format!("a read of {key:?} at {began:?}: {what}"));
    }
}

/// Looks at what every key holds in the end.
pub fn at_the_end(shared: &Shared) {
    let (changes, held) = (shared.changes.lock().clone(), shared.held.lock().clone());
    for (key, held) in held {
        let of_key: Vec<&Change> = changes.iter().filter(|change| change.key == key).collect();
        let sloppy = shared.scenario.quorums.sloppy;
        let found = match &held {
            Held::Value(value) if key.starts_with(b"counter") => {
                counted(&increments(&of_key), value.as_ref(), None).map(|what| ("increments-count-once", what))
            }
            Held::Value(value) => one_winner(&changes, &of_key, value.as_ref()).map(|what| ("one-winner", what)),
            Held::Members(members) => of_a_set(&of_key, members, sloppy),
            Held::Fields(fields) => of_a_hash(&changes, &of_key, fields, sloppy),
        };
        if let Some((checker, what)) = found {
            shared.find(checker, format!("{key:?}: {what}; {}", told(&of_key)));
        }
    }
}

/// Steps of a counter, with what came of each.
fn increments<'a>(changes: &[&'a Change]) -> Vec<(i64, &'a Change)> {
    let step = |change: &&'a Change| match change.command {
        Command::Increment(step) => Some((step, *change)),
        _ => None,
    };
    changes.iter().filter_map(step).collect()
}

/// A counter is the sum of all acknowledged increments, and of others each once or not at all. Of a read only those
/// count for sure that were acknowledged before it `began`.
fn counted(steps: &[(i64, &Change)], value: Option<&Bytes>, began: Option<Duration>) -> Option<String> {
    let text = value.map_or(Ok("0"), |value| std::str::from_utf8(value));
    let Some(value) = text.ok().and_then(|text| text.parse::<i64>().ok()) else {
        return Some(format!("{value:?} is no number"));
    };
    let surely = |change: &Change| {
        change.told == Told::Done && began.is_none_or(|began| change.ended.is_some_and(|ended| ended < began))
    };
    let sure: i64 = steps.iter().filter(|(_, change)| surely(change)).map(|(step, _)| step).sum();
    let free = steps.iter().filter(|(_, change)| !surely(change) && change.told != Told::NotDone);
    let free: Vec<i64> = free.map(|(step, _)| *step).collect();
    if is_sum_of_some(&free, value - sure) != Some(false) {
        return None;
    }
    Some(format!("{value} is not {sure} and some of {free:?}"))
}

/// Whether a number is the sum of some of others; `None`: there are too many to tell.
fn is_sum_of_some(steps: &[i64], sum: i64) -> Option<bool> {
    if steps.len() > FREE_MAX {
        return None;
    }
    let sums = |steps: &[i64]| {
        let mut sums = vec![0];
        for step in steps {
            let with: Vec<i64> = sums.iter().map(|sum| sum + step).collect();
            sums.extend(with);
        }
        sums
    };
    let (left, right) = steps.split_at(steps.len() / 2);
    let left: BTreeSet<i64> = sums(left).into_iter().collect();
    Some(sums(right).into_iter().any(|right| left.contains(&(sum - right))))
}

fn puts(change: &Change) -> Option<&Bytes> {
    match &change.command {
        Command::Add(name) | Command::SetField(name) => Some(name),
        _ => None,
    }
}

fn takes(change: &Change) -> Option<&Bytes> {
    match &change.command {
        Command::Remove(name) | Command::RemoveField(name) => Some(name),
        _ => None,
    }
}

fn names<'a>(changes: &[&'a Change]) -> impl Iterator<Item = &'a Bytes> {
    changes.iter().filter_map(|change| puts(change)).collect::<BTreeSet<_>>().into_iter()
}

/// Whether it was put there, with an acknowledgement before `by`, after all that may have taken it away was over: no
/// remove can have seen it, so it stays.
fn must_be_there(changes: &[&Change], name: &Bytes, by: Option<Duration>) -> bool {
    let mut put = changes.iter().filter(|change| {
        let in_time = by.is_none_or(|by| change.over_before(by));
        puts(change) == Some(name) && change.told == Told::Done && in_time
    });
    let took = |change: &Change| takes(change) == Some(name) && change.told != Told::NotDone;
    put.any(|put| changes.iter().filter(|change| took(change)).all(|taken| taken.over_before(put.began)))
}

/// Whether it was taken away, with an acknowledgement, after all that may have put it there was over. Without fallbacks
/// the remove has seen all of that.
fn must_be_gone(changes: &[&Change], name: &Bytes) -> bool {
    let mut took = changes.iter().filter(|change| takes(change) == Some(name) && change.told == Told::Done);
    let put = |change: &Change| puts(change) == Some(name) && change.told != Told::NotDone;
    took.any(|took| changes.iter().filter(|change| put(change)).all(|put| put.over_before(took.began)))
}

fn there_or_gone<'a>(
    changes: &[&Change],
    there: impl Fn(&Bytes) -> bool,
    sloppy: bool,
) -> Option<(&'a str, String)> {
    names(changes).find_map(|name| {
        if there(name) {
            let gone = !sloppy && must_be_gone(changes, name);
            return gone.then(|| ("removes-remove", format!("{name:?} is there, which was removed since")));
        }
        let lost = must_be_there(changes, name, None);
        lost.then(|| ("adds-stay", format!("{name:?} is gone, which no remove has seen")))
    })
}

fn of_a_set(changes: &[&Change], members: &[Bytes], sloppy: bool) -> Option<(&'static str, String)> {
    let added: BTreeSet<&Bytes> = names(changes).collect();
    if let Some(member) = members.iter().find(|member| !added.contains(member)) {
        return Some(("nothing-invented", format!("nobody has added {member:?}")));
    }
    there_or_gone(changes, |name| members.contains(name), sloppy)
}

fn of_a_hash(
    all: &[Change],
    changes: &[&Change],
    fields: &BTreeMap<Bytes, Bytes>,
    sloppy: bool,
) -> Option<(&'static str, String)> {
    let mut numbers: BTreeMap<&Bytes, Vec<(i64, &Change)>> = BTreeMap::new();
    for change in changes {
        if let Command::IncrementField(field, step) = &change.command {
            numbers.entry(field).or_default().push((*step, change));
        }
    }
    for (field, steps) in &numbers {
        if let Some(what) = counted(steps, fields.get(*field), None) {
            return Some(("increments-count-once", format!("field {field:?}: {what}")));
        }
    }
    for (field, value) in fields.iter().filter(|(field, _)| !numbers.contains_key(field)) {
        let writer = change_of(value).and_then(|at| all.get(at));
        let Some(writer) = writer.filter(|writer| puts(writer) == Some(field)) else {
            return Some(("nothing-invented", format!("nobody has set {field:?} to {value:?}")));
        };
        // Whoever set it again after that was answered has seen it, without fallbacks, and so has a later timestamp.
        let since = changes.iter().find(|other| {
            puts(other) == Some(field) && other.told == Told::Done && writer.over_before(other.began)
        });
        if let Some(later) = since.filter(|_| !sloppy) {
            let what = format!("{field:?} is {value:?}, which was replaced at {:?}", later.began);
            return Some(("last-writer-wins", what));
        }
    }
    there_or_gone(changes, |name| fields.contains_key(name), sloppy)
}

/// Of conditional writes that were told to have succeeded, no two had the same condition, and the last of them is there,
/// or one that may have happened and replaced it.
fn one_winner(all: &[Change], changes: &[&Change], value: Option<&Bytes>) -> Option<String> {
    let done = || changes.iter().filter(|change| change.told == Told::Done);
    let mut conditions: Vec<Option<&Bytes>> = Vec::new();
    for change in done() {
        let condition = match &change.command {
            Command::Create => None,
            Command::Replace(before) => Some(before),
            _ => continue,
        };
        if conditions.contains(&condition) {
            let was = condition.map_or(String::from("absent"), |before| format!("{before:?}"));
            return Some(format!("two commands have replaced the same value, {was}"));
        }
        conditions.push(condition);
    }
    let Some(value) = value else {
        return done().next().map(|_| String::from("what was written is gone"));
    };
    let writer = change_of(value).and_then(|at| all.get(at)).filter(|writer| changes.contains(writer));
    match writer {
        None => Some(format!("{value:?} was never written")),
        Some(writer) if writer.told == Told::NotDone => Some(format!("{value:?} is there, which was refused")),
        Some(writer) if writer.told == Told::Done && conditions.contains(&Some(value)) => {
            Some(format!("{value:?} is there again, which was replaced"))
        }
        Some(_) => None,
    }
}

fn told(changes: &[&Change]) -> String {
    let each = changes.iter().map(|change| {
        let (began, ended) = (change.began.as_secs_f64(), change.ended.unwrap_or_default().as_secs_f64());
        format!("{:?} {:?} ({began:.3} to {ended:.3})", change.command, change.told)
    });
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::value_of;

    fn change(command: Command, began: u64, ended: u64, told: Told) -> Change {
        let (began, ended) = (Duration::from_secs(began), Some(Duration::from_secs(ended)));
        Change { key: Bytes::from_static(b"k"), command, began, ended, told }
    }

    fn name() -> Bytes {
        Bytes::from_static(b"m")
    }

    #[test]
    fn a_counter_is_what_was_acknowledged_and_some_of_the_rest() {
        let changes = [
            change(Command::Increment(5), 0, 1, Told::Done),
            change(Command::Increment(100), 0, 1, Told::Unsure),
            change(Command::Increment(7000), 0, 1, Told::NotDone),
        ];
        let changes: Vec<&Change> = changes.iter().collect();
        let is =
            |value: &str| counted(&increments(&changes), Some(&Bytes::from(value.to_owned())), None).is_none();
        assert!(is("5") && is("105"));
        assert!(!is("0") && !is("100") && !is("10") && !is("205") && !is("7005"));
    }

    #[test]
    fn an_add_stays_unless_a_remove_may_have_seen_it() {
        let add = change(Command::Add(name()), 4, 5, Told::Done);
        for (began, ended, told, stays) in [
            (1, 3, Told::Done, true),
            (1, 4, Told::Done, false),
            (1, 3, Told::Unsure, false),
            (6, 7, Told::NotDone, true),
        ] {
            let remove = change(Command::Remove(name()), began, ended, told);
            assert_eq!(must_be_there(&[&add, &remove], &name(), None), stays, "{remove:?}");
        }
        let remove = change(Command::Remove(name()), 6, 7, Told::Done);
        assert!(must_be_gone(&[&add, &remove], &name()));
        let unsure = change(Command::Add(name()), 4, 5, Told::Unsure);
        assert!(!must_be_gone(&[&unsure, &remove], &name()));
    }

    #[test]
    fn one_of_several_with_the_same_condition_wins_and_its_value_stays() {
        let first = change(Command::Create, 0, 1, Told::Done);
        let second = change(Command::Replace(value_of(0)), 0, 9, Told::Done);
        let third = change(Command::Replace(value_of(0)), 0, 9, Told::Unsure);
        let all = [first.clone(), second.clone(), third.clone()];
        let changes: Vec<&Change> = all.iter().collect();
        let is = |value: Option<&Bytes>| one_winner(&all, &changes, value).is_none();
        assert!(is(Some(&value_of(1))) && is(Some(&value_of(2))));
        assert!(!is(Some(&value_of(0))) && !is(None) && !is(Some(&value_of(3))));
        let twice = [first, second.clone(), second];
        let changes: Vec<&Change> = twice.iter().collect();
        assert!(one_winner(&twice, &changes, Some(&value_of(1))).is_some());
    }
}
