//! Quorum counting: cases as text, and any run against trying all ways to count.

use dynamo::preference::MemberIndex;
use dynamo::quorum::{Outcome, Progress, ReadQuorum, WriteQuorum, holders_to_meet};
use dynamo::ring::Quorums;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Whatever n, r and w are: lists of n keep them, numbers are possible, a read meets a write wherever it did at n, and
/// a change of n by two that keeps the distances from a majority changes no list's quorums.
#[test]
fn quorums_of_lists_of_another_length() {
    let triples = (1..=9u8).flat_map(|n| (1..=n).flat_map(move |r| (1..=n).map(move |w| (n, r, w))));
    for (n, r, w) in triples {
        let quorums = Quorums { n, r, w, sloppy: true };
        assert_eq!(quorums.of_list(usize::from(n)), (usize::from(r), usize::from(w)));
        let raised = Quorums { n: n + 2, r: r + 1, w: w + 1, sloppy: true };
        for members in 1..=11 {
            let (reading, writing) = quorums.of_list(members);
            assert!((1..=members).contains(&reading) && (1..=members).contains(&writing));
            assert!(r + w <= n || reading + writing > members, "{quorums:?} with {members}");
        }
        let both = [usize::from(n), usize::from(n) + 2];
        assert!(
            r + w <= n
                || both.map(|members| quorums.of_list(members)) == both.map(|members| raised.of_list(members))
        );
    }
}

type Lists = Vec<(Vec<MemberIndex>, usize)>;

/// The quorum of the case that is being run.
enum Counting {
    Nothing,
    Write(WriteQuorum),
    Read(ReadQuorum),
}

impl Counting {
    fn progress(&self) -> String {
        let progress = match self {
            Self::Nothing => return String::from("no case"),
            Self::Write(quorum) => quorum.progress(),
            Self::Read(quorum) => quorum.progress(),
        };
        match progress {
            Progress::Waiting => String::from("waiting"),
            Progress::Done => String::from("done"),
            Progress::Failed { list, got, need } => format!("failed: list {list} has {got} of {need}"),
        }
    }

    /// Does what a line says and returns what is to be said.
    fn take(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let added = match (&mut *self, words.as_slice()) {
            (_, ["write", mode @ ("sloppy" | "strict"), rest @ ..]) => {
                *self = Self::Write(WriteQuorum::new(&lists(rest), *mode == "sloppy"));
                return self.progress();
            }
            (_, ["read", list @ .., "r", r]) => {
                *self = Self::Read(ReadQuorum::new(&members(list), number(r)));
                return self.progress();
            }
            (Self::Write(quorum), ["lists", rest @ ..]) => {
                *quorum = quorum.replace_lists(&lists(rest));
                quorum.progress()
            }
            (Self::Write(quorum), ["stored", at]) => quorum.add_result(member(at), Outcome::Stored),
            (Self::Write(quorum), ["hint", target, "at", fallback]) => {
                quorum.add_result(member(target), Outcome::StoredByFallback(member(fallback)))
            }
            (Self::Write(quorum), ["failed", at]) => quorum.add_result(member(at), Outcome::Failed),
            (Self::Write(quorum), ["missing"]) => return numbers(&quorum.missing()),
            (Self::Write(quorum), ["acknowledged"]) => return numbers(&quorum.acknowledged()),
            (Self::Read(quorum), ["answer", at]) => quorum.add_answer(member(at)),
            (Self::Read(quorum), ["failed", at]) => quorum.add_failure(member(at)),
            (Self::Read(quorum), ["missing"]) => return numbers(&quorum.missing()),
            _ => return format!("not understood: {line}"),
        };
        let now = match self {
            Self::Write(quorum) => quorum.progress(),
            Self::Read(quorum) => quorum.progress(),
            Self::Nothing => added,
        };
        assert_eq!(added, now, "what adding returns is where the quorum stands");
        self.progress()
    }
}

fn lists(words: &[&str]) -> Lists {
    let lists = words.split(|word| *word == "/").filter(|list| !list.is_empty());
    lists
        .map(|list| match list {
            [list @ .., "w", w] => (members(list), number(w)),
            _ => panic!("a list without w: {list:?}"),
        })
        .collect()
}

fn members(words: &[&str]) -> Vec<MemberIndex> {
    words.iter().map(|word| member(word)).collect()
}

fn member(word: &str) -> MemberIndex {
    MemberIndex(number(word) as u16)
}

fn number(word: &str) -> usize {
    word.parse().unwrap_or_else(|_| panic!("no number: {word}"))
}

fn numbers(members: &[MemberIndex]) -> String {
    members.iter().map(MemberIndex::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_write_that_falls_short_tells_of_the_list_that_lacks_most() {
    let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(MemberIndex);
    let mut quorum = WriteQuorum::new(&[(vec![a, b, c], 2), (vec![c, d, e], 2)], false);
    assert_eq!(quorum.furthest_behind(), (0, 2));
    for member in [a, b] {
        quorum.add_result(member, Outcome::Stored);
    }
    assert_eq!(quorum.furthest_behind(), (0, 2));
    quorum.add_result(c, Outcome::Stored);
    assert_eq!(quorum.furthest_behind(), (1, 2));
}

/// Whoever meets that many holders meets one of each write that exists still, and fewer would not do.
#[test]
fn as_many_holders_are_met_as_it_takes() {
    let subsets = |of: u32, size: u32| (0..1_u32 << of).filter(move |set| set.count_ones() == size);
    for holders in 1..=6_u32 {
        for (w, gone) in (1..=holders).flat_map(|w| (0..1 << holders).map(move |gone: u32| (w, gone))) {
            let left: Vec<u32> = (0..1 << holders).filter(|set| set & gone == 0).collect();
            let writes: Vec<u32> =
                subsets(holders, w).map(|having| having & !gone).filter(|&had| had != 0).collect();
            let meets_all = |met: &u32| writes.iter().all(|had| had & met != 0);
            let enough = |size| left.iter().filter(|met| met.count_ones() == size).all(meets_all);
            let least = (0..=holders - gone.count_ones()).find(|&size| enough(size)).unwrap();
            let told = holders_to_meet(holders as usize, w as usize, gone.count_ones() as usize);
            assert_eq!(told, least as usize, "{holders} holders, w = {w}, gone {gone:b}");
        }
    }
}

#[test]
fn the_cases_in_the_text() {
    let mut counting = Counting::Nothing;
    let (mut cases, mut wrong, mut why) = (0, Vec::new(), "");
    for (at, line) in (1..).zip(include_str!("quorum_cases.txt").lines()) {
        if let Some(comment) = line.strip_prefix('#') {
            (counting, why) = (Counting::Nothing, comment.trim());
            continue;
        }
        let Some((what, expected)) = line.split_once("->") else {
            assert!(line.trim().is_empty(), "line {at} expects nothing: {line}");
            continue;
        };
        cases += usize::from(matches!(counting, Counting::Nothing));
        let said = counting.take(what);
        if said != expected.trim() {
            wrong.push(format!("line {at}: {} -> {said}, not {} ({why})", what.trim(), expected.trim()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(cases >= 25, "only {cases} cases were found");
}

/// Few members, so that lists overlap and fallbacks are members, too.
fn any_member() -> impl Strategy<Value = MemberIndex> + Clone {
    (0u16..8).prop_map(MemberIndex)
}

fn any_lists() -> impl Strategy<Value = Lists> {
    prop::collection::vec((prop::collection::vec(any_member(), 0..5), 0usize..5), 0..3)
}

fn result() -> impl Strategy<Value = (MemberIndex, Outcome)> {
    let outcome = prop_oneof![
        2 => Just(Outcome::Stored),
        4 => any_member().prop_map(Outcome::StoredByFallback),
        2 => Just(Outcome::Failed),
    ];
    (any_member(), outcome)
}

fn feed(quorum: &mut WriteQuorum, results: &[(MemberIndex, Outcome)]) -> Progress {
    for (member, outcome) in results {
        quorum.add_result(*member, *outcome);
    }
    quorum.progress()
}

/// The facts, as sets.
struct Facts {
    stored: BTreeSet<MemberIndex>,
    failed: BTreeSet<MemberIndex>,
    hints: BTreeSet<(MemberIndex, MemberIndex)>,
}

impl Facts {
    fn of(results: &[(MemberIndex, Outcome)], sloppy: bool) -> Self {
        let with =
            |wanted| results.iter().filter(move |(_, outcome)| *outcome == wanted).map(|(member, _)| *member);
        let hint = |(target, outcome): &(MemberIndex, Outcome)| match outcome {
            Outcome::StoredByFallback(fallback) if sloppy => Some((*target, *fallback)),
            _ => None,
        };
        Self {
            stored: with(Outcome::Stored).collect(),
            failed: with(Outcome::Failed).collect(),
            hints: results.iter().filter_map(hint).collect(),
        }
    }

    /// The most copies any way of counting finds: every member without a copy of its own takes each of its fallbacks
    /// in turn, or none.
    fn most(&self, list: &BTreeSet<MemberIndex>, own: &BTreeSet<MemberIndex>) -> usize {
        let without: Vec<MemberIndex> = list.difference(own).copied().collect();
        list.intersection(own).count() + self.most_hints(list, &without, &mut BTreeSet::new())
    }

    fn most_hints(
        &self,
        list: &BTreeSet<MemberIndex>,
        without: &[MemberIndex],
        taken: &mut BTreeSet<MemberIndex>,
    ) -> usize {
        let Some((member, rest)) = without.split_first() else { return 0 };
        let mut most = self.most_hints(list, rest, taken);
        for (_, fallback) in self.hints.iter().filter(|(target, _)| target == member) {
            if !list.contains(fallback) && taken.insert(*fallback) {
                most = most.max(1 + self.most_hints(list, rest, taken));
                taken.remove(fallback);
            }
        }
        most
    }

    fn progress(&self, lists: &Lists) -> Progress {
        let mut waiting = false;
        for (at, (list, w)) in lists.iter().enumerate() {
            let list: BTreeSet<MemberIndex> = list.iter().copied().collect();
            let need = (*w).min(list.len()).max(1);
            let got = self.most(&list, &self.stored);
            let hopeful: BTreeSet<MemberIndex> = list
                .iter()
                .filter(|member| self.stored.contains(member) || !self.failed.contains(member))
                .copied()
                .collect();
            if self.most(&list, &hopeful) < need {
                return Progress::Failed { list: at, got, need };
            }
            waiting |= got < need;
        }
        match (lists.is_empty(), waiting) {
            (true, _) => Progress::Failed { list: 0, got: 0, need: 1 },
            (false, true) => Progress::Waiting,
            (false, false) => Progress::Done,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn a_write_stands_where_trying_all_ways_to_count_says(
        lists in any_lists(), sloppy in any::<bool>(), results in prop::collection::vec(result(), 0..14)
    ) {
        let mut quorum = WriteQuorum::new(&lists, sloppy);
        for end in 0..=results.len() {
            let expected = Facts::of(&results[..end], sloppy).progress(&lists);
            prop_assert_eq!(quorum.progress(), expected);
            if let Some((member, outcome)) = results.get(end) {
                quorum.add_result(*member, *outcome);
            }
        }
    }

    #[test]
    fn the_order_of_results_does_not_matter(
        lists in any_lists(),
        (results, shuffled) in prop::collection::vec(result(), 0..14)
            .prop_flat_map(|results| (Just(results.clone()), Just(results).prop_shuffle()))
    ) {
        let (mut one, mut other) = (WriteQuorum::new(&lists, true), WriteQuorum::new(&lists, true));
        prop_assert_eq!(feed(&mut one, &results), feed(&mut other, &shuffled));
    }

    #[test]
    fn new_lists_count_as_if_they_had_been_there_from_the_start(
        old in any_lists(), new in any_lists(), results in prop::collection::vec(result(), 0..10), at in 0usize..10
    ) {
        let (before, after) = results.split_at(at.min(results.len()));
        let mut changed = WriteQuorum::new(&old, true);
        feed(&mut changed, before);
        changed = changed.replace_lists(&new);
        let mut fresh = WriteQuorum::new(&new, true);
        prop_assert_eq!(feed(&mut changed, after), feed(&mut fresh, &results));
        prop_assert_eq!(changed, fresh);
    }

    /// The promise: acknowledged means durable at that many distinct nodes of every list or for it.
    #[test]
    fn what_is_done_is_on_enough_disks(lists in any_lists(), results in prop::collection::vec(result(), 0..14)) {
        let mut quorum = WriteQuorum::new(&lists, true);
        let done = feed(&mut quorum, &results) == Progress::Done;
        let facts = Facts::of(&results, true);
        let missing: BTreeSet<_> = quorum.missing().into_iter().collect();
        let acknowledged: BTreeSet<_> = quorum.acknowledged().into_iter().collect();
        for (list, w) in &lists {
            let list: BTreeSet<MemberIndex> = list.iter().copied().collect();
            let own = list.intersection(&facts.stored).copied();
            let hints = facts.hints.iter().filter(|(target, _)| list.contains(target)).map(|(_, fallback)| *fallback);
            let disks: BTreeSet<MemberIndex> = own.chain(hints).collect();
            prop_assert!(!done || disks.len() >= (*w).min(list.len()).max(1));
            for member in list {
                prop_assert!(missing.contains(&member) != acknowledged.contains(&member));
                prop_assert_eq!(quorum.has(member), acknowledged.contains(&member));
                prop_assert!(!facts.stored.contains(&member) || acknowledged.contains(&member));
            }
        }
        if let [(list, _)] = lists.as_slice() {
            let list: BTreeSet<MemberIndex> = list.iter().copied().collect();
            prop_assert_eq!(acknowledged.len(), facts.most(&list, &facts.stored));
        }
    }

    #[test]
    fn a_read_stands_where_its_sets_say(
        list in prop::collection::vec(any_member(), 0..5), r in 0usize..5,
        results in prop::collection::vec((any_member(), any::<bool>()), 0..10)
    ) {
        let mut quorum = ReadQuorum::new(&list, r);
        let list: BTreeSet<MemberIndex> = list.into_iter().collect();
        let need = r.min(list.len()).max(1);
        prop_assert_eq!(quorum.needed(), need);
        let (mut answered, mut failed) = (BTreeSet::new(), BTreeSet::new());
        for (member, answers) in results {
            let (set, progress) = match answers {
                true => (&mut answered, quorum.add_answer(member)),
                false => (&mut failed, quorum.add_failure(member)),
            };
            set.extend(list.get(&member).copied());
            let lost = failed.difference(&answered).count();
            let expected = if answered.len() >= need {
                Progress::Done
            } else if list.len() - lost >= need {
                Progress::Waiting
            } else {
                Progress::Failed { list: 0, got: answered.len(), need }
            };
            prop_assert_eq!(progress, expected);
            let silent: BTreeSet<_> = list.difference(&answered).copied().collect();
            prop_assert_eq!(quorum.missing().into_iter().collect::<BTreeSet<_>>(), silent);
        }
    }
}
