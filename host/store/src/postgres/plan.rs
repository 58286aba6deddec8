//! What becomes of the appends of a batch, decided in memory in their order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use amends_engine::{PluginName, StateChange, StateQuery, Timestamp};

use super::rows::{Rows, Write};
use super::seen::{Seen, StateKey, StreamState};
use super::text::uuid_of;
use crate::append::{Append, Appended};
use crate::error::StoreError;
use crate::id_time::{START_DELAY, delay_of};
use crate::stream::Stream;

/// The most streams whose version is kept in memory: those of the live sagas of a busy host.
const STREAMS_CACHED_MAX: usize = 1 << 16;

/// The life that needs no record, in milliseconds.
pub(super) const LIFE_USUAL_MS: i64 = 600_000;

/// What the writer knows of the database without reading it.
pub(super) struct WriterCache {
    /// How many events the lane has written.
    pub(super) total: i64,
    /// Of live sagas in shards of this host: only this host writes to them while it has the fence.
    pub(super) streams: HashMap<Stream, StreamState>,
    /// The bytes of the state of plugins. Other hosts change them as well, so they are forgotten now and then.
    pub(super) state_bytes: HashMap<PluginName, u64>,
    pub(super) start_delay: i64,
    pub(super) longest_life: i64,
}

impl WriterCache {
    /// Makes the cache of a lane that has written nothing.
    pub(super) fn new() -> Self {
        Self {
            total: 0,
            streams: HashMap::new(),
            state_bytes: HashMap::new(),
            start_delay: 0,
            longest_life: 0,
        }
    }

    /// Forgets everything that a failed transaction may have made wrong.
    pub(super) fn forget(&mut self) {
        self.streams.clear();
        self.state_bytes.clear();
    }
}

/// A batch of appends, decided.
pub(super) struct Plan {
    /// The answer to each append, in their order.
    pub(super) results: Vec<Result<Appended, StoreError>>,
    pub(super) writes: Vec<Write>,
    /// How many events are written.
    pub(super) events: i64,
    /// An append to a saga that was taken for a new one is refused for another reason. So no key says whether it is
    /// new, and the append is refused for its version if it is not.
    pub(super) is_unsure: bool,
    streams: Vec<(Stream, Option<StreamState>)>,
    state_bytes: HashMap<PluginName, u64>,
    start_delay: i64,
    longest_life: i64,
}

/// Returns how many of the jobs, of which some are appends, may be decided together. A call that listed keys is compared with the
/// database, so no append before it in the batch may write keys of the same plugin.
pub(super) fn together<'a>(appends: impl Iterator<Item = Option<&'a Append>>) -> usize {
    let mut written: HashSet<&PluginName> = HashSet::new();
    let mut count = 0;
    for append in appends {
        // Another job.
        let Some(append) = append else {
            count += 1;
            continue;
        };
        let lists = |change: &&Arc<StateChange>| {
            !change.lists.is_empty() && written.contains(&change.plugin)
        };
        if append.state.iter().any(|change| lists(&change)) {
            break;
        }
        let writes = append.state.iter().filter(|change| change.writes_any());
        written.extend(writes.map(|change| &change.plugin));
        count += 1;
    }
    count
}

/// Decides about appends, in their order.
pub(super) fn plan(cache: &WriterCache, mut seen: Seen, appends: &[&Append]) -> Plan {
    let mut rows = Rows::default();
    let (mut events, mut touched) = (0, Vec::new());
    let assumed_new = std::mem::take(&mut seen.assumed_new);
    let (mut ended_before, mut is_unsure) = (Vec::new(), false);
    let (mut start_delay, mut longest_life) = (cache.start_delay, cache.longest_life);
    let mut results = Vec::with_capacity(appends.len());
    for (number, append) in appends.iter().enumerate() {
        let planned = check(&seen, number, append);
        let (values, bytes) = match planned {
            Ok(planned) => planned,
            Err(refused) => {
                let is_of_state =
                    matches!(*refused, Ok(Appended::StateChanged(_) | Appended::StateFull(_)));
                let is_assumed = |saga| assumed_new.contains(&uuid_of(saga));
                is_unsure |= is_of_state && append.stream.saga().is_some_and(is_assumed);
                results.push(*refused);
                continue;
            }
        };
        let known = seen.streams.get(&append.stream).copied().unwrap_or_default();
        events += i64::try_from(append.events.len()).unwrap_or(i64::MAX);
        let version = append.expected.plus(append.events.len());
        rows.add(append, events, known.has_row);
        if known.has_ended {
            ended_before.extend(append.stream.saga().map(uuid_of));
        }
        for (key, value) in values {
            rows.put_state(key.clone(), value.clone());
            seen.values.insert(key, value);
        }
        seen.state_bytes.extend(bytes);
        if let (Some(key), Some(saga)) = (&append.start_key, append.stream.saga()) {
            seen.keys.insert(key.key.clone(), (saga, key.payload_digest));
        }
        let mut ended = known.has_ended;
        if let Some(row) = &append.row {
            ended = row.ended_at.is_some();
            if !known.has_row {
                start_delay = start_delay.max(delay_of(row.id, row.started_at));
            }
            let life = row.ended_at.map_or(0, |at: Timestamp| {
                at.as_millis().saturating_sub(row.started_at.as_millis())
            });
            longest_life = longest_life.max(life);
        }
        let state = StreamState {
            version,
            has_row: known.has_row || append.row.is_some(),
            has_ended: ended,
            is_archived: false,
        };
        seen.streams.insert(append.stream.clone(), state);
        // Other hosts write to the streams of no saga, and move sagas that have ended.
        let is_own = append.stream.saga().is_some() && !ended;
        touched.push((append.stream.clone(), is_own.then_some(state)));
        results.push(Ok(Appended::Done { version }));
    }
    let mut writes = rows.into_writes();
    let mut not_archived = assumed_new;
    not_archived.extend(ended_before);
    if !not_archived.is_empty() {
        writes.insert(0, Write { sql: NOT_ARCHIVED, values: vec![Box::new(not_archived)] });
    }
    let usual = i64::try_from(START_DELAY.as_millis()).unwrap_or(i64::MAX);
    for (name, known, longest, usual) in [
        ("start_delay", cache.start_delay, &mut start_delay, usual),
        ("longest_life", cache.longest_life, &mut longest_life, LIFE_USUAL_MS),
    ] {
        if *longest > known && *longest > usual {
            // Rounded up, so that few batches change it.
            let rounded = longest.unsigned_abs().next_power_of_two();
            *longest = i64::try_from(rounded).unwrap_or(i64::MAX);
            writes.push(Write { sql: LONGEST, values: vec![Box::new(name), Box::new(*longest)] });
        } else {
            *longest = known;
        }
    }
    Plan {
        results,
        writes,
        events,
        is_unsure,
        streams: touched,
        state_bytes: seen.state_bytes,
        start_delay,
        longest_life,
    }
}

/// Fails when one of some sagas is in the archive. Whoever moves sagas there holds all lanes.
const NOT_ARCHIVED: &str =
    "SELECT 1 / (count(*) = 0)::int FROM archived WHERE saga = ANY($1::uuid[])";

/// Remembers the longest of something.
pub(super) const LONGEST: &str = "INSERT INTO meta VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET value = greatest(meta.value, excluded.value)";

impl Plan {
    /// Remembers what is durable now.
    pub(super) fn remember(self, cache: &mut WriterCache) {
        cache.total += self.events;
        cache.state_bytes.extend(self.state_bytes);
        (cache.start_delay, cache.longest_life) = (self.start_delay, self.longest_life);
        if cache.streams.len() + self.streams.len() > STREAMS_CACHED_MAX {
            cache.streams.clear();
        }
        for (stream, state) in self.streams {
            match state {
                Some(state) => drop(cache.streams.insert(stream, state)),
                None => drop(cache.streams.remove(&stream)),
            }
        }
    }
}

/// The values that an append writes, and how many bytes the state of each plugin then has.
type StateWrites = (BTreeMap<StateKey, Option<Arc<str>>>, HashMap<PluginName, u64>);

/// Checks an append against what was seen. An error is the answer to it.
fn check(
    seen: &Seen,
    number: usize,
    append: &Append,
) -> Result<StateWrites, Box<Result<Appended, StoreError>>> {
    if let Some(key) = &append.start_key
        && let Some((saga, digest)) = seen.keys.get(&key.key)
    {
        let is_same = *digest == key.payload_digest;
        let known = if is_same { Appended::Duplicate(*saga) } else { Appended::KeyReused(*saga) };
        return Err(Box::new(Ok(known)));
    }
    let known = seen.streams.get(&append.stream).copied().unwrap_or_default();
    if known.version != append.expected || known.is_archived {
        let (stream, expected) = (append.stream.clone(), append.expected);
        let actual = known.version;
        return Err(Box::new(Err(StoreError::Conflict { stream, expected, actual })));
    }
    check_state(seen, number, append).map_err(|refused| Box::new(Ok(refused)))
}

/// Checks the state changes of an append. They follow one another.
fn check_state(seen: &Seen, number: usize, append: &Append) -> Result<StateWrites, Appended> {
    let mut written: BTreeMap<StateKey, Option<Arc<str>>> = BTreeMap::new();
    let mut bytes: HashMap<PluginName, u64> = HashMap::new();
    for (index, change) in append.state.iter().enumerate() {
        let of = |key: &String| (change.plugin.clone(), key.clone());
        let value = |written: &BTreeMap<StateKey, Option<Arc<str>>>, key: &String| {
            let key = of(key);
            let stored = || seen.values.get(&key).cloned().flatten();
            written.get(&key).cloned().unwrap_or_else(stored)
        };
        let is_read = |(key, seen): (&String, &Option<Arc<str>>)| value(&written, key) == *seen;
        let is_listed = |(at, list): (usize, &amends_engine::StateList)| {
            !covers_any(&written, &change.plugin, &list.query)
                && seen.lists.get(&(number, index, at)).is_some_and(|now| *now == list.keys)
        };
        if !change.reads.iter().all(is_read) || !change.lists.iter().enumerate().all(is_listed) {
            return Err(Appended::StateChanged(index));
        }
        let stored = || seen.state_bytes.get(&change.plugin).copied().unwrap_or(0);
        let before = bytes.get(&change.plugin).copied().unwrap_or_else(stored);
        let mut now = before;
        let mut put = |written: &mut BTreeMap<_, _>, key: &String, new: Option<Arc<str>>| {
            let of_value = |value: &Arc<str>| (key.len() + value.len()) as u64;
            now -= value(written, key).as_ref().map_or(0, of_value).min(now);
            now += new.as_ref().map_or(0, of_value);
            written.insert(of(key), new);
        };
        for (key, counter) in &change.counters {
            let Some(sum) = counter.after(value(&written, key).as_deref()) else {
                return Err(Appended::StateChanged(index));
            };
            if counter.delta != 0 {
                put(&mut written, key, Some(sum.to_string().into()));
            }
        }
        for (key, new) in &change.writes {
            put(&mut written, key, new.clone());
        }
        // A change that makes the state smaller is always taken.
        if now > change.bytes_max && now > before {
            return Err(Appended::StateFull(index));
        }
        bytes.insert(change.plugin.clone(), now);
    }
    Ok((written, bytes))
}

/// Returns true when a list may contain a key that was written.
fn covers_any(
    written: &BTreeMap<StateKey, Option<Arc<str>>>,
    plugin: &PluginName,
    query: &StateQuery,
) -> bool {
    written.keys().any(|(owner, key)| owner == plugin && query.covers(key))
}
