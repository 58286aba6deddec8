//! How many calls may run at once: of the host, of each plugin, of each service; and the memory that
//! each begins with.
//!
//! A call takes its room when it is admitted, before that is durable, and gives it back when it
//! has returned. So a call that is recorded as started waits only when it needs more than it took. A part
//! of each room is kept for undos, so that new work cannot starve compensation.
//!
//! No wake-up is lost. A worker that finds no room first writes that it waits, and then reads once more
//! how much room is left. A call that gives room back first writes the room, and then reads who waits.
//! These two writes and two reads are sequentially consistent. With a weaker order both sides could read
//! the old value of the other, and nobody would be woken.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use amends_engine::{Direction, PluginName, ServiceName};
use amends_sandbox::{CallMemory, PluginMemory};

use crate::limits::{CALLS_KEPT_FOR_UNDO, CALLS_MAX};
use crate::ports::Wake;
use crate::room_key::RoomKey;

/// One in so many calls of a plugin or a service is kept for undos, where there are two or more.
const KEPT_PART: usize = 8;

#[derive(Debug)]
struct Room {
    key: RoomKey,
    limit: usize,
    kept: usize,
    taken: AtomicUsize,
    /// Workers that wait for it, a bit each (of the worker's number, modulo 64).
    waiting: AtomicU64,
}

/// All rooms of a host. Shared by its workers; none of it is locked for longer than a look-up.
#[derive(Debug)]
pub(crate) struct Rooms {
    host: Arc<Room>,
    others: RwLock<BTreeMap<RoomKey, Arc<Room>>>,
    services: BTreeMap<ServiceName, usize>,
    wake: Arc<dyn Wake>,
}
/// The room that one call has taken; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    rooms: Vec<Arc<Room>>,
    /// Until the call has it.
    memory: Option<CallMemory>,
    owner: Arc<Rooms>,
}

/// What a plugin may have.
pub(crate) struct OfPlugin<'a> {
    pub(crate) name: &'a PluginName,
    /// Calls at once.
    pub(crate) concurrency: usize,
    pub(crate) memory: &'a PluginMemory,
}

impl Rooms {
    /// Makes the rooms of a host with at most `calls_max` calls at once.
    pub(crate) fn new(
        calls_max: usize,
        services: BTreeMap<ServiceName, usize>,
        wake: Arc<dyn Wake>,
    ) -> Self {
        let limit = calls_max.min(CALLS_MAX);
        let host = Room::new(RoomKey::Host, limit, kept_of(limit).min(CALLS_KEPT_FOR_UNDO));
        Self { host: Arc::new(host), others: RwLock::default(), services, wake }
    }

    /// Takes room for a call, or says whose room is full, and remembers that `worker` waits for it.
    pub(crate) fn take(
        self: &Arc<Self>,
        worker: usize,
        direction: Direction,
        plugin: &OfPlugin<'_>,
        service: Option<&ServiceName>,
    ) -> Result<Taken, RoomKey> {
        let of_plugin = self.room(RoomKey::Plugin(plugin.name.clone()), plugin.concurrency);
        let service = service.and_then(|name| {
            let limit = *self.services.get(name)?;
            Some(self.room(RoomKey::Service(name.clone()), limit))
        });
        let rooms = Vec::with_capacity(3);
        let mut taken = Taken { rooms, memory: None, owner: Arc::clone(self) };
        for room in [Some(Arc::clone(&self.host)), Some(of_plugin), service].into_iter().flatten() {
            if !room.take(worker, direction) {
                return Err(room.key.clone());
            }
            taken.rooms.push(room);
        }
        let wake = || {
            let (owner, key) = (Arc::clone(self), RoomKey::Memory(plugin.name.clone()));
            Box::new(move || owner.wake.room(1 << (worker % 64), &key)) as Box<_>
        };
        taken.memory = plugin.memory.take(direction, worker, wake);
        if taken.memory.is_none() {
            return Err(RoomKey::Memory(plugin.name.clone()));
        }
        Ok(taken)
    }

    /// Calls in flight or about to be.
    pub(crate) fn in_flight(&self) -> usize {
        self.host.taken.load(Ordering::Relaxed)
    }

    /// The rooms that calls have asked for: that of the host, of plugins and of services.
    pub(crate) fn keys(&self) -> Vec<RoomKey> {
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(&RoomKey::Host).chain(others.keys()).cloned().collect()
    }

    fn room(&self, key: RoomKey, limit: usize) -> Arc<Room> {
        let known = self.others.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        known.unwrap_or_else(|| {
            let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
            let room = others.entry(key.clone());
            Arc::clone(room.or_insert_with(|| Arc::new(Room::new(key, limit, kept_of(limit)))))
        })
    }
}

/// Of so many calls, those that are kept for undos.
fn kept_of(limit: usize) -> usize {
    if limit < 2 { 0 } else { (limit / KEPT_PART).max(1) }
}

impl Taken {
    /// The memory that the call begins with, for the call.
    pub(crate) fn memory(&mut self) -> Option<CallMemory> {
        self.memory.take()
    }
}

impl Room {
    fn new(key: RoomKey, limit: usize, kept: usize) -> Self {
        let (taken, waiting) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self { key, limit, kept, taken, waiting }
    }

    fn take(&self, worker: usize, direction: Direction) -> bool {
        let limit = match direction {
            Direction::Execute => self.limit - self.kept,
            Direction::Compensate => self.limit,
        };
        let try_take = || {
            let more = |taken: usize| (taken < limit).then_some(taken + 1);
            self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
        };
        if try_take() {
            return true;
        }
        // Said before the second try, so that room which is given back in between is not missed.
        self.waiting.fetch_or(1 << (worker % 64), Ordering::SeqCst);
        try_take()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        for room in self.rooms.drain(..) {
            room.taken.fetch_sub(1, Ordering::SeqCst);
            if room.waiting.load(Ordering::SeqCst) != 0 {
                let workers = room.waiting.swap(0, Ordering::SeqCst);
                self.owner.wake.room(workers, &room.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Woken(std::sync::Mutex<Vec<(u64, RoomKey)>>);

    impl Wake for Woken {
        fn room(&self, workers: u64, key: &RoomKey) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((workers, key.clone()));
        }

        fn breaker_has_changed(&self, _: &ServiceName) {}

        fn trial_is_free(&self, _: &ServiceName) {}
    }

    fn name(text: &str) -> PluginName {
        text.parse().unwrap_or_else(|_| panic!("a name"))
    }

    fn of_plugin<'a>(name: &'a PluginName, memory: &'a PluginMemory) -> OfPlugin<'a> {
        OfPlugin { name, concurrency: 4, memory }
    }

    #[test]
    fn executes_leave_room_for_undos_and_whoever_waits_is_woken() {
        let woken = Arc::new(Woken::default());
        let rooms =
            Arc::new(Rooms::new(CALLS_MAX, BTreeMap::new(), Arc::clone(&woken) as Arc<dyn Wake>));
        let (plugin, memory) = (name("slow"), PluginMemory::alone());
        let take =
            |worker, direction| rooms.take(worker, direction, &of_plugin(&plugin, &memory), None);
        let executes: Vec<_> = (0..3).map(|_| take(0, Direction::Execute)).collect();
        assert!(executes.iter().all(Result::is_ok));
        let full = take(1, Direction::Execute).err();
        assert_eq!(full, Some(RoomKey::Plugin(plugin.clone())), "the last is kept for undos");
        assert_eq!(rooms.in_flight(), 3, "what could not be taken whole is given back");
        let undo = take(0, Direction::Compensate);
        assert!(undo.is_ok() && take(0, Direction::Compensate).is_err());
        drop(undo);
        let woken = woken.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert_eq!(woken, [(0b11, RoomKey::Plugin(plugin.clone()))]);
        let other = name("other");
        assert!(rooms.take(0, Direction::Execute, &of_plugin(&other, &memory), None).is_ok());
    }

    #[test]
    fn a_host_has_no_more_calls_than_it_may_have_whatever_its_plugins_may() {
        let woken = Arc::new(Woken::default());
        let rooms = Arc::new(Rooms::new(3, BTreeMap::new(), woken as Arc<dyn Wake>));
        let (plugin, memory) = (name("slow"), PluginMemory::alone());
        let take = |direction| rooms.take(0, direction, &of_plugin(&plugin, &memory), None);
        let executes: Vec<_> = (0..2).map(|_| take(Direction::Execute)).collect();
        assert!(executes.iter().all(Result::is_ok));
        assert_eq!(take(Direction::Execute).err(), Some(RoomKey::Host), "the last is for undos");
        let undo = take(Direction::Compensate);
        assert!(undo.is_ok());
        assert_eq!(take(Direction::Compensate).err(), Some(RoomKey::Host));
    }

    /// A worker that finds no room is woken by whoever gives it back meanwhile: with weaker orderings
    /// than those of this module that does not follow, though no x86 shows it.
    #[test]
    fn room_that_is_given_back_while_a_worker_says_that_it_waits_wakes_it() {
        let woken = Arc::new(Woken::default());
        let rooms =
            Arc::new(Rooms::new(CALLS_MAX, BTreeMap::new(), Arc::clone(&woken) as Arc<dyn Wake>));
        let (plugin, memory) = (name("slow"), PluginMemory::alone());
        let take = || rooms.take(7, Direction::Compensate, &of_plugin(&plugin, &memory), None);
        for _ in 0..20_000 {
            let held: Vec<_> = (0..4).filter_map(|_| take().ok()).collect();
            assert_eq!(held.len(), 4);
            let (start, took) = (std::sync::Barrier::new(2), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    drop(held);
                });
                start.wait();
                took.store(usize::from(take().is_ok()), Ordering::Relaxed);
            });
            let mut woken = woken.0.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(took.load(Ordering::Relaxed) == 1 || !woken.is_empty(), "nobody wakes it");
            woken.clear();
        }
    }
}
