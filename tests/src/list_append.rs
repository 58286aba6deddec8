//! Whether calls that append to lists saw and left what some order of them, one after another, would have.
//!
//! It is the test `list-append` of Elle (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental
//! Observations", VLDB 2020). A list says in which order its elements were written, and what a call saw of it says
//! between which two of them it read. So the order of versions is known, and need not be guessed.
//!
//! Deliberately absent: the order of time. Calls that follow one another may be serialized the other way round.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Behaviour, Component};

/// The bytes of an operation in the input of [`list_append`]: `+` or `?`, and the name of the list.
pub const OPERATION_BYTES: usize = 7;

/// What a call did to one list, in which it saw these elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The name of the list.
    pub list: String,
    /// Whether it appended the key of its call, or only read.
    pub appends: bool,
    /// The list before.
    pub seen: Vec<String>,
}

/// A call whose success is recorded. It names no list twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListCall {
    /// Its idempotency key, which is what it appends.
    pub key: String,
    /// What it did.
    pub operations: Vec<Operation>,
}

/// Why one call stands before another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Dependency {
    /// The other one appended behind it.
    Write,
    /// The other one saw what it appended.
    Read,
    /// The other one appended what it did not see yet.
    AntiRead,
}

impl fmt::Display for Dependency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Write => "ww",
            Self::Read => "wr",
            Self::AntiRead => "rw",
        })
    }
}

/// One call before another one: their numbers.
#[derive(Debug, Clone, Copy)]
struct Edge {
    from: usize,
    to: usize,
    dependency: Dependency,
}

/// Returns what is wrong with calls and the lists that they left: an append that is lost or doubled, an element of no
/// call, a read that is no prefix of its list, and calls that each stand before the next one and the last before the
/// first.
#[must_use]
pub fn anomalies(calls: &[ListCall], lists: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let numbers: BTreeMap<&str, usize> =
        calls.iter().enumerate().map(|(number, call)| (call.key.as_str(), number)).collect();
    let mut wrong = Vec::new();
    if numbers.len() < calls.len() {
        wrong.push(format!("{} calls have {} keys", calls.len(), numbers.len()));
    }
    elements(calls, lists, &mut wrong);
    let mut edges = Vec::new();
    for list in lists.values() {
        for pair in list.windows(2) {
            connect(&numbers, [&pair[0], &pair[1]], Dependency::Write, &mut edges);
        }
    }
    for (call, operation) in operations(calls) {
        let list = lists.get(&operation.list).map_or(&[][..], Vec::as_slice);
        let seen = operation.seen.len();
        if !list.starts_with(&operation.seen) {
            wrong.push(format!(
                "{} saw {:?} in {}, which is no prefix of {list:?}",
                call.key, operation.seen, operation.list
            ));
            continue;
        }
        if let Some(last) = operation.seen.last() {
            connect(&numbers, [last, &call.key], Dependency::Read, &mut edges);
        }
        if let Some(next) = list.get(seen) {
            connect(&numbers, [&call.key, next], Dependency::AntiRead, &mut edges);
        }
    }
    // Adya's phenomena: each graph has the edges of the one before.
    let graphs =
        [("G0", Dependency::Write), ("G1c", Dependency::Read), ("G2", Dependency::AntiRead)];
    let found = graphs.into_iter().find_map(|(name, last)| {
        let edges = edges.iter().filter(|edge| edge.dependency <= last).copied().collect();
        Some((name, cycle(calls.len(), edges)?))
    });
    if let Some((name, cycle)) = found {
        let told = cycle.iter().map(|edge| {
            format!("{} {} {}", calls[edge.from].key, edge.dependency, calls[edge.to].key)
        });
        wrong.push(format!("{name}, a cycle: {}", told.collect::<Vec<_>>().join(", ")));
    }
    wrong
}

fn operations(calls: &[ListCall]) -> impl Iterator<Item = (&ListCall, &Operation)> {
    calls.iter().flat_map(|call| call.operations.iter().map(move |operation| (call, operation)))
}

/// Each append is in its list once, and nothing else is there.
fn elements(calls: &[ListCall], lists: &BTreeMap<String, Vec<String>>, wrong: &mut Vec<String>) {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (list, element) in
        lists.iter().flat_map(|(name, list)| list.iter().map(move |it| (name, it)))
    {
        *counts.entry((list, element)).or_default() += 1;
    }
    for (call, operation) in operations(calls).filter(|(_, operation)| operation.appends) {
        match counts.remove(&(operation.list.as_str(), call.key.as_str())) {
            None => wrong.push(format!("{} is lost from {}", call.key, operation.list)),
            Some(1) => {}
            Some(count) => {
                wrong.push(format!("{} is in {} {count} times", call.key, operation.list));
            }
        }
    }
    for (list, element) in counts.into_keys() {
        wrong.push(format!("{element} is in {list}, and no call that succeeded has appended it"));
    }
}

/// Adds an edge between the calls of two keys, unless it is one call, or a call that did not succeed, which is wrong
/// already.
fn connect(
    numbers: &BTreeMap<&str, usize>,
    keys: [&String; 2],
    dependency: Dependency,
    edges: &mut Vec<Edge>,
) {
    if let [Some(from), Some(to)] = keys.map(|key| numbers.get(key.as_str()).copied())
        && from != to
    {
        edges.push(Edge { from, to, dependency });
    }
}

/// Returns edges of which each begins where the one before ends, and the first one where the last ends.
fn cycle(calls: usize, edges: Vec<Edge>) -> Option<Vec<Edge>> {
    // A call before which nothing stands is in no cycle, and without it there may be more such calls (Kahn, 1962).
    let (mut into, mut out) = (vec![Vec::new(); calls], vec![Vec::new(); calls]);
    for edge in edges {
        into[edge.to].push(edge);
        out[edge.from].push(edge.to);
    }
    let mut left: Vec<usize> = into.iter().map(Vec::len).collect();
    let mut first: Vec<usize> = (0..calls).filter(|call| left[*call] == 0).collect();
    while let Some(call) = first.pop() {
        for to in &out[call] {
            left[*to] -= 1;
            if left[*to] == 0 {
                first.push(*to);
            }
        }
    }
    // Before each of the others stands another one of them: that way back, one comes twice.
    let mut at = left.iter().position(|count| *count > 0)?;
    let (mut way, mut places) = (Vec::new(), BTreeMap::new());
    while !places.contains_key(&at) {
        places.insert(at, way.len());
        let edge = into[at].iter().find(|edge| left[edge.from] > 0)?;
        way.push(*edge);
        at = edge.from;
    }
    let mut cycle: Vec<_> = way.into_iter().skip(places[&at]).collect();
    cycle.reverse();
    Some(cycle)
}

/// A plugin that appends the key of its call to lists in its state, and reads lists. Its input is a text of operations
/// of [`OPERATION_BYTES`], one after another: `+00007a?00007b` appends to the list `00007a` and reads `00007b`. Its
/// output is `{"key":KEY,"operations":[["+00007a",SEEN],…]}`.
///
/// A list has less than 20,000 bytes as JSON, and a call three operations at most.
#[must_use]
pub fn list_append() -> Vec<u8> {
    let execute = Behaviour::Text(APPEND);
    let component = Component { name: "append", needs: &["state"], ..Component::default() };
    Component { imports: APPEND_PARTS, execute, ..component }.build()
}

/// The output is written at 131,072, a list that is longer by one at 196,608. `put` adds bytes where `out` is.
const APPEND_PARTS: &str = r#"
    (import "amends:saga/state@1.1.0" "get" (func $get (param i32 i32 i32)))
    (import "amends:saga/state@1.1.0" "set" (func $set (param i32 i32 i32 i32)))
    (global $out (mut i32) (i32.const 131072))
    (func $put (param $from i32) (param $bytes i32)
        (memory.copy (global.get $out) (local.get $from) (local.get $bytes))
        (global.set $out (i32.add (global.get $out) (local.get $bytes))))
    (data (i32.const 8192) "{\22key\22:\22")
    (data (i32.const 8200) "\22,\22operations\22:[")
    (data (i32.const 8216) ",[\22")
    (data (i32.const 8219) "\22,]}")
    (data (i32.const 8224) "[]")"#;

/// The input is a text of JSON, between quotation marks. The key of the call is the parameters 7 and 8. What `get`
/// answers stands at 8,240: whether there is a value, and the value.
const APPEND: &str = r"
    (local $end i32) (local $list i32) (local $bytes i32) (local $saved i32)
    (local.set $end (i32.sub (i32.add (local.get $at) (local.get $length)) (i32.const 1)))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (call $put (i32.const 8192) (i32.const 8))
    (call $put (local.get 7) (local.get 8))
    (call $put (i32.const 8200) (i32.const 16))
    (loop $next
        (call $get (i32.add (local.get $at) (i32.const 1)) (i32.const 6) (i32.const 8240))
        (local.set $list (i32.const 8224))
        (local.set $bytes (i32.const 2))
        (if (i32.load8_u (i32.const 8240)) (then
            (local.set $list (i32.load (i32.const 8244)))
            (local.set $bytes (i32.load (i32.const 8248)))))
        (if (i32.ge_u (local.get $bytes) (i32.const 20000)) (then unreachable))
        (call $put (i32.const 8217) (i32.const 2))
        (call $put (local.get $at) (i32.const 7))
        (call $put (i32.const 8219) (i32.const 2))
        (call $put (local.get $list) (local.get $bytes))
        (call $put (i32.const 8221) (i32.const 1))
        (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 43)) (then
            (local.set $saved (global.get $out))
            (global.set $out (i32.const 196608))
            (call $put (local.get $list) (i32.sub (local.get $bytes) (i32.const 1)))
            (if (i32.gt_u (local.get $bytes) (i32.const 2)) (then
                (call $put (i32.const 8216) (i32.const 1))))
            (call $put (i32.const 8218) (i32.const 1))
            (call $put (local.get 7) (local.get 8))
            (call $put (i32.const 8218) (i32.const 1))
            (call $put (i32.const 8221) (i32.const 1))
            (call $set (i32.add (local.get $at) (i32.const 1)) (i32.const 6) (i32.const 196608)
                (i32.sub (global.get $out) (i32.const 196608)))
            (global.set $out (local.get $saved))))
        (local.set $at (i32.add (local.get $at) (i32.const 7)))
        (if (i32.lt_u (local.get $at) (local.get $end)) (then
            (call $put (i32.const 8216) (i32.const 1))
            (br $next))))
    (call $put (i32.const 8221) (i32.const 2))
    (i32.store offset=8 (i32.const 2048) (i32.const 131072))
    (i32.store offset=12 (i32.const 2048) (i32.sub (global.get $out) (i32.const 131072)))
    (i32.const 2048)";

#[cfg(test)]
mod tests {
    use super::*;

    /// A call, with what it saw where: `+a` appends, `?a` reads.
    fn call(key: &str, operations: &[(&str, &[&str])]) -> ListCall {
        let operations = operations.iter().map(|(operation, seen)| Operation {
            list: operation[1..].to_owned(),
            appends: operation.starts_with('+'),
            seen: seen.iter().map(|&key| key.to_owned()).collect(),
        });
        ListCall { key: key.to_owned(), operations: operations.collect() }
    }

    fn found(calls: &[ListCall], lists: &[(&str, &[&str])]) -> Vec<String> {
        let list = |list: &[&str]| list.iter().map(|&key| key.to_owned()).collect();
        let lists = lists.iter().map(|(name, keys)| ((*name).to_owned(), list(keys))).collect();
        anomalies(calls, &lists)
    }

    #[test]
    fn calls_one_after_another_have_no_anomaly() {
        let calls = [
            call("3", &[("+x", &["1", "2"]), ("?z", &[])]),
            call("1", &[("+x", &[])]),
            call("4", &[("?x", &["1", "2"]), ("?y", &["2"])]),
            call("2", &[("+x", &["1"]), ("+y", &[])]),
            call("5", &[("+y", &["2"]), ("?x", &["1", "2", "3"])]),
        ];
        let nothing: [String; 0] = [];
        assert_eq!(found(&calls, &[("x", &["1", "2", "3"]), ("y", &["2", "5"])]), nothing);
        assert_eq!(found(&[], &[]), nothing);
    }

    #[test]
    fn an_update_that_is_lost_is_found() {
        // Both saw the list as it was, and the later one wrote over the other.
        let calls = [call("1", &[("+x", &[])]), call("2", &[("+x", &[])])];
        assert_eq!(found(&calls, &[("x", &["2"])]), ["1 is lost from x"]);
        // Nothing is left at all.
        assert_eq!(found(&calls[..1], &[]), ["1 is lost from x"]);
        // Nothing is lost, but the second one did not see what it appended to.
        let told = found(&calls, &[("x", &["1", "2"])]);
        assert_eq!(told, ["G2, a cycle: 1 ww 2, 2 rw 1"]);
    }

    #[test]
    fn an_append_that_is_doubled_is_found() {
        let calls = [call("1", &[("+x", &[])]), call("2", &[("+x", &["1"])])];
        let told = found(&calls, &[("x", &["1", "2", "2"])]);
        assert_eq!(told, ["2 is in x 2 times"]);
        let again = [calls[0].clone(), calls[0].clone()];
        assert!(found(&again, &[("x", &["1"])]).contains(&"2 calls have 1 keys".to_owned()));
    }

    #[test]
    fn an_append_of_no_call_is_found() {
        let calls = [call("1", &[("?x", &["9"])])];
        let told = found(&calls, &[("x", &["9"])]);
        assert_eq!(told, ["9 is in x, and no call that succeeded has appended it"]);
    }

    #[test]
    fn a_read_that_is_no_prefix_is_found() {
        let calls = [
            call("1", &[("+x", &[])]),
            call("2", &[("+x", &["1"])]),
            call("3", &[("?x", &["2"])]),
            call("4", &[("?x", &["1", "2", "5"])]),
        ];
        assert_eq!(
            found(&calls, &[("x", &["1", "2"])]),
            [
                r#"3 saw ["2"] in x, which is no prefix of ["1", "2"]"#,
                r#"4 saw ["1", "2", "5"] in x, which is no prefix of ["1", "2"]"#,
            ]
        );
    }

    #[test]
    fn lists_that_two_calls_wrote_in_different_orders_are_a_cycle() {
        let calls =
            [call("1", &[("+x", &[]), ("+y", &["2"])]), call("2", &[("+x", &["1"]), ("+y", &[])])];
        let told = found(&calls, &[("x", &["1", "2"]), ("y", &["2", "1"])]);
        assert_eq!(told, ["G0, a cycle: 1 ww 2, 2 ww 1"]);
    }

    #[test]
    fn calls_that_saw_one_another_are_a_cycle() {
        let calls =
            [call("1", &[("+x", &[]), ("?y", &["2"])]), call("2", &[("+y", &[]), ("?x", &["1"])])];
        let told = found(&calls, &[("x", &["1"]), ("y", &["2"])]);
        assert_eq!(told, ["G1c, a cycle: 1 wr 2, 2 wr 1"]);
    }

    #[test]
    fn calls_that_did_not_see_one_another_are_a_cycle() {
        // Write skew: each read what the other one wrote, and both before that.
        let calls =
            [call("1", &[("+x", &[]), ("?y", &[])]), call("2", &[("+y", &[]), ("?x", &[])])];
        let told = found(&calls, &[("x", &["1"]), ("y", &["2"])]);
        assert_eq!(told, ["G2, a cycle: 1 rw 2, 2 rw 1"]);
        // A reader that saw the second of two writes, and not the first.
        let calls = [
            call("1", &[("+x", &[])]),
            call("2", &[("+y", &[]), ("?x", &["1"])]),
            call("3", &[("?y", &["2"]), ("?x", &[])]),
        ];
        let told = found(&calls, &[("x", &["1"]), ("y", &["2"])]);
        assert_eq!(told, ["G2, a cycle: 1 wr 2, 2 wr 3, 3 rw 1"]);
    }

    #[test]
    fn a_cycle_is_found_among_many_calls() {
        const CALLS: usize = 50_000;
        let key = |number: usize| format!("{number}");
        // A list for each hundred of them, as in a long run.
        let mut lists: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut calls = Vec::new();
        for number in 0..CALLS {
            let name = format!("{}", number / 100);
            let list = lists.entry(name.clone()).or_default();
            let operation = Operation { list: name, appends: true, seen: list.clone() };
            list.push(key(number));
            calls.push(ListCall { key: key(number), operations: vec![operation] });
        }
        assert_eq!(anomalies(&calls, &lists), Vec::<String>::new());
        let early = Operation { list: "499".to_owned(), appends: false, seen: Vec::new() };
        calls[CALLS - 1].operations.push(early);
        let told = anomalies(&calls, &lists);
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("G2, a cycle: "), "{told:?}");
    }
}
