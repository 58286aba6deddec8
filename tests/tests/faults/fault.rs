//! The faults, one after another, each of them over when the host takes sagas again.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use amends_store::{Durability, SqliteStore};
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::json;

use crate::books::Books;
use crate::definitions::note;
use crate::disk::Cut;
use crate::load::{Asker, order_approval};
use crate::place::{get, stderr};
use crate::stage::Stage;

/// In which a host ends that has lost its store, once somebody wants something of it.
const ENDS_IN: Duration = Duration::from_secs(30);

/// Sagas that wait for a signal when the host is stopped.
const WAITING: usize = 10;

/// Images of each power cut that are looked at.
const IMAGES: usize = 4;

/// What a host ends with that has lost its store.
const STORE_LOST: i32 = 9;

/// How long a host may live on with its failpoint set.
const HIT_LIMIT: Duration = Duration::from_secs(4);

/// Where a host dies, and how often it comes there before.
const POINTS: [(&str, u64); 14] = [
    ("store.append.events_written", 40),
    ("store.transaction.before", 40),
    ("store.transaction.written", 40),
    ("store.transaction.committed", 40),
    ("store.transaction.answered", 40),
    ("plugins.call.before", 20),
    ("plugins.call.returned", 20),
    ("runtime.outcome.durable", 20),
    ("runtime.start.durable", 10),
    ("runtime.order.durable", 3),
    ("runtime.timer.fired", 3),
    ("runtime.compensation.decided", 5),
    ("runtime.child.undo_ordered", 2),
    ("runtime.recovery.saga_before", 2),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// kill -9.
    Kill,
    /// The host dies at a failpoint.
    Point,
    /// kill -9, and what was not synced is lost.
    Power,
    /// SIGTERM.
    Stop,
    /// SIGSTOP and SIGCONT, or a kill in between.
    Pause,
    /// Some writes and syncs fail.
    Io,
    /// Nothing can be written.
    Full,
    /// The clock jumps, and is set right.
    Clock,
    /// A second host takes the store while the first is stopped, and the first wakes.
    Takeover,
    /// A second host is refused.
    Second,
    /// The events of one saga are damaged.
    Damage,
    /// Components are replaced, tried and taken back.
    Deploy,
    /// The service refuses everything.
    Outage,
}

impl Fault {
    const ALL: [(&'static str, Self); 13] = [
        ("kill", Self::Kill),
        ("point", Self::Point),
        ("power", Self::Power),
        ("stop", Self::Stop),
        ("pause", Self::Pause),
        ("io", Self::Io),
        ("full", Self::Full),
        ("clock", Self::Clock),
        ("takeover", Self::Takeover),
        ("second", Self::Second),
        ("damage", Self::Damage),
        ("deploy", Self::Deploy),
        ("outage", Self::Outage),
    ];

    /// Those that are named, with commas between them; all when none is.
    pub(crate) fn chosen(names: &str) -> Vec<Self> {
        if names.is_empty() {
            return Self::ALL.map(|(_, fault)| fault).to_vec();
        }
        let one = |name: &str| {
            let found = Self::ALL.iter().find(|(known, _)| *known == name);
            found.unwrap_or_else(|| panic!("no fault `{name}`; there are {:?}", Self::ALL)).1
        };
        names.split(',').map(one).collect()
    }
}

impl Stage<'_> {
    /// One fault after another, each once before one comes again, until the time is over.
    pub(crate) fn run(&mut self, faults: &[Fault], until: Instant) {
        let mut order = Vec::new();
        loop {
            if order.is_empty() {
                order = faults.to_vec();
                self.random.shuffle(&mut order);
            }
            let fault = order.pop().unwrap();
            self.sleep(200, 1_200);
            let began = Instant::now();
            self.inflict(fault);
            println!("{fault:?} took {:.1} s", began.elapsed().as_secs_f64());
            self.count(&format!("{fault:?}").to_lowercase(), 1);
            if Instant::now() >= until {
                return;
            }
        }
    }

    fn inflict(&mut self, fault: Fault) {
        match fault {
            Fault::Kill => {
                self.kill();
                self.start();
            }
            Fault::Point => self.die_at_a_point(),
            Fault::Power => self.cut_power(),
            Fault::Stop => {
                self.stop();
                self.start();
            }
            Fault::Pause => self.pause(),
            Fault::Io => self.fail_writes(),
            Fault::Full => {
                self.disk.fill();
                self.sleep(300, 1_500);
                self.mend();
            }
            Fault::Clock => self.move_clock(),
            Fault::Takeover => self.take_over(),
            Fault::Second => self.start_a_second(),
            Fault::Damage => self.damage(),
            Fault::Deploy => self.deploy(),
            Fault::Outage => {
                self.service.set_away(true);
                self.sleep(300, 1_500);
                self.service.set_away(false);
            }
        }
    }

    fn die_at_a_point(&mut self) {
        let (name, hits_max) = *self.random.pick(&POINTS);
        let hits = self.random.below(hits_max);
        self.kill();
        let mut host = self.spawn(&[("FAILPOINTS", &format!("{name}={hits}*off->return"))]);
        if host.becomes_ready() {
            self.world.ask_at(vec![host.url("")]);
        }
        let ended = host.aborted(HIT_LIMIT);
        self.count("died at its point", u64::from(ended.is_some()));
        self.note(&ended.unwrap_or_default());
        self.start();
    }

    /// Looks at what power cuts at some moments would have left, then goes on with what one leaves
    /// now.
    fn cut_power(&mut self) {
        self.kill();
        for _ in 0..IMAGES {
            self.look_at_an_image();
        }
        let cut = self.disk.cut_power(&mut self.random);
        self.count("writes kept", cut.kept as u64);
        self.count("writes lost", cut.lost as u64);
        self.count("writes torn", cut.torn as u64);
        self.start();
    }

    fn look_at_an_image(&mut self) {
        let folder = tempfile::tempdir().unwrap();
        let mut cut = Cut::default();
        let (path, mark) = self.disk.image(folder.path(), &mut self.random, &mut cut);
        self.count("images", 1);
        self.count("writes lost in images", cut.lost as u64);
        self.count("writes torn in images", cut.torn as u64);
        let marks = self.disk.acknowledged_before(mark);
        let mut found = BTreeSet::new();
        let mut wrong = Vec::new();
        // A file that has never been synced may be gone, and empty it is a new store.
        if path.exists() {
            let store = SqliteStore::open(&path, Durability::Full).unwrap_or_else(|error| {
                panic!("what a power cut leaves at {mark:?} cannot be opened: {error}")
            });
            wrong.extend(Books::read(store).verified);
            let connection = Connection::open(&path).unwrap();
            let sagas = "SELECT lower(hex(stream)) FROM appends WHERE typeof(stream) = 'blob'";
            let mut sagas = connection.prepare(sagas).unwrap();
            found.extend(sagas.query_map([], |row| row.get::<_, String>(0)).unwrap().flatten());
        }
        let lost = marks.iter().filter(|(_, id)| !found.contains(&id.replace('-', "")));
        wrong.extend(lost.map(|(at, id)| format!("{id}, acknowledged at {at:?}, is lost")));
        self.count("looks for a saga in images", marks.len() as u64);
        assert!(wrong.is_empty(), "after a power cut at {mark:?}: {wrong:#?}");
    }

    fn pause(&mut self) {
        let asker = Asker::new();
        let waiting: Vec<_> =
            (0..WAITING).filter_map(|_| self.start_saga(&asker, "gate")).collect();
        self.host().signal(Signal::STOP);
        let (world, name) = (self.world, format!("stage {}", self.sagas));
        std::thread::scope(|scope| {
            // Their orders are read when the host wakes, and by then most of their waits are over.
            for (id, verb) in waiting.iter().zip(["skip", "resolve", "cancel"].iter().cycle()) {
                let reason = format!("{name} {verb} {id}");
                scope.spawn(move || order_approval(world, id, verb, reason));
            }
            self.sleep(300, 2_500);
            if self.random.percent(30) {
                self.kill();
                self.start();
            } else {
                self.host().signal(Signal::CONT);
            }
        });
    }

    fn fail_writes(&mut self) {
        let (writes, syncs) =
            *self.random.pick(&[(30, 0), (300, 0), (0, 30), (0, 300), (100, 100)]);
        let half = self.random.percent(50);
        self.disk.fail(writes, syncs, half);
        self.sleep(300, 1_500);
        match self.random.below(3) {
            0 => {
                self.kill();
                self.disk.mend();
                self.start();
            }
            // What could not be synced is not there.
            1 => {
                self.kill();
                self.disk.mend();
                let cut = self.disk.cut_power(&mut self.random);
                self.count("writes lost", cut.lost as u64);
                self.start();
            }
            _ => self.mend(),
        }
    }

    /// The disk is well again. So is the host, or it has ended with an error and starts again.
    fn mend(&mut self) {
        self.disk.mend();
        let mut host = self.host.take().unwrap();
        if host.becomes_ready() {
            self.host = Some(host);
            self.until_it_takes_sagas();
        } else {
            let (code, log) = host.ended_logged();
            self.note(&log);
            assert_eq!(code, Some(STORE_LOST), "{}", self.last_log());
            self.count("ended by itself", 1);
            self.start();
        }
    }

    fn move_clock(&mut self) {
        const HOUR_MS: i64 = 3_600_000;
        let offset_ms = *self.random.pick(&[HOUR_MS, -HOUR_MS, 48 * HOUR_MS, -48 * HOUR_MS, 3_000]);
        self.disk.set_clock(offset_ms);
        self.sleep(300, 1_500);
        // It is set right under the host, before one that woke with it, or while none runs.
        match self.random.below(3) {
            0 => (),
            1 => {
                self.kill();
                self.start();
                self.sleep(100, 500);
            }
            _ => {
                self.kill();
                self.disk.set_clock(0);
                self.start();
            }
        }
        self.disk.set_clock(0);
    }

    /// On a file system whose locks do not hold: the fence of the store is what there is.
    fn take_over(&mut self) {
        self.kill();
        let unlocked = ("AMENDS_SHIM_UNLOCKED", "1");
        let host = self.spawn(&[unlocked]);
        self.serve(host);
        self.sleep(300, 1_000);
        let mut old = self.host.take().unwrap();
        let is_paused = self.random.percent(70);
        if is_paused {
            old.signal(Signal::STOP);
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = fs::read_to_string(self.place.path("amends.toml")).unwrap();
        let listen = |port: u16| format!("listen = \"127.0.0.1:{port}\"");
        let config = config.replace(&listen(self.place.port), &listen(port));
        fs::write(self.place.path("amends.toml"), config).unwrap();
        self.place.port = port;
        let mut new = self.spawn(&[unlocked]);
        // It may wait for a transaction that the old one was stopped in.
        let woken_after = Duration::from_millis(200 + self.random.below(800));
        std::thread::sleep(woken_after);
        if is_paused {
            old.signal(Signal::CONT);
        }
        assert!(new.becomes_ready(), "it does not take over:\n{}", new.log().join("\n"));
        self.world.ask_at(vec![new.url("")]);
        // What the old one still acknowledges must be there, and somebody asks until it ends.
        let (asker, began) = (Asker::new(), Instant::now());
        while !old.has_ended() {
            self.start_saga_at(&asker, "plain", &old.url("/v1/sagas"));
            if began.elapsed() > ENDS_IN {
                let log = old.kill();
                self.note(&log);
                let log = self.last_log();
                panic!("a host whose store was taken over lives on:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let (code, log) = old.ended_logged();
        self.note(&log);
        assert_eq!(code, Some(STORE_LOST), "{}", self.last_log());
        self.host = Some(new);
        // The next one has the lock again.
        self.sleep(300, 1_000);
        self.kill();
        self.start();
    }

    /// The lock holds: a second host is refused while the first has the store, stopped or not.
    fn start_a_second(&mut self) {
        let is_paused = self.random.percent(50);
        if is_paused {
            self.host().signal(Signal::STOP);
        }
        let second = self.spawn(&[("AMENDS_LISTEN", "127.0.0.1:0")]);
        let (code, log) = second.ended_logged();
        if is_paused {
            self.host().signal(Signal::CONT);
        }
        let log = log.join("\n");
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("is in use by another process"), "{log}");
    }

    /// A saga that waits is damaged while nobody runs: it is set aside with a reason, others go on,
    /// and when it is mended it goes on as well.
    fn damage(&mut self) {
        let asker = Asker::new();
        let id = loop {
            if let Some(id) = self.start_saga(&asker, "hold") {
                break id;
            }
        };
        let status = |stage: &Self| get(&stage.url(&format!("/v1/sagas/{id}")))["status"].clone();
        self.host().until("it waits or is undone", || status(self) != "running");
        self.stop();
        self.world.is_unread.store(true, Ordering::Relaxed);
        let stream: String = id.chars().filter(char::is_ascii_hexdigit).collect();
        let read = "SELECT position, events FROM appends WHERE hex(stream) = upper(?1) \
                    ORDER BY position DESC LIMIT 1";
        let write = "UPDATE appends SET events = ?2 WHERE position = ?1";
        let connection = self.connection();
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?));
        let (position, events) = connection.query_row(read, [&stream], row).unwrap();
        let damaged = match self.random.below(3) {
            0 => events[..events.len() / 2].to_owned(),
            1 => events.replacen("\"attempt\":", "\"attempt\":-", 1),
            _ => events.replacen("\"step\"", "\"stop\"", 1),
        };
        assert_ne!(damaged, events);
        connection.execute(write, (position, &damaged)).unwrap();
        drop(connection);
        self.start();
        let (code, why) = asker.get(&self.url(&format!("/v1/sagas/{id}/why"))).unwrap();
        let is_set_aside = why["status"] == "quarantined"
            && why["sentence"].as_str().is_some_and(|why| why.contains("quarantined and"));
        // One that ended before the host stopped is read when somebody asks for it, and not before.
        let row = get(&self.url(&format!("/v1/sagas?id={stream}")))["items"][0].clone();
        let has_ended = ["completed", "compensated"].contains(&row["status"].as_str().unwrap());
        let is_over = has_ended && (code == 200 || why["code"] == "saga_unreadable");
        assert!(is_set_aside || is_over, "{id} is damaged ({damaged}): {code} {why}");
        self.count("set aside", u64::from(is_set_aside));
        self.until_it_takes_sagas();
        self.stop();
        let connection = self.connection();
        connection.execute(write, (position, &events)).unwrap();
        drop(connection);
        self.disk.settle();
        self.start();
        self.world.is_unread.store(false, Ordering::Relaxed);
        let url = self.url(&format!("/v1/sagas/{id}/signals/approved"));
        asker.post(&url, None, &json!({"payload": true}));
    }

    fn deploy(&mut self) {
        let served = get(&self.url("/v1/plugins/note"))["version"].clone();
        fs::write(self.place.path("note.wasm"), note(served.as_str().unwrap())).unwrap();
        let is_canary = self.random.percent(50);
        let mut deploy = vec!["deploy", "note.wasm"];
        if is_canary {
            deploy.extend(["--canary", "50%"]);
        }
        self.command_about_plugins("deployed", &deploy);
        self.sleep(100, 500);
        if self.random.percent(40) {
            self.kill();
            self.start();
        }
        if is_canary || self.random.percent(50) {
            self.command_about_plugins("rolled back", &["rollback", "note"]);
        }
    }

    fn command_about_plugins(&mut self, what: &str, arguments: &[&str]) {
        let arguments = [&["plugin"], arguments, &["--reason", "test"]].concat();
        let output = self.place.amends(&arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        self.count(what, 1);
    }

    /// What `verify` is asked for is what it finds.
    pub(crate) fn damage_is_found(&self) {
        // Not the last append of its saga: a log that ends early looks like one that has ended.
        let delete = "DELETE FROM appends WHERE position = (SELECT min(position) FROM appends a \
                      WHERE length(stream) = 16 AND position > 50 AND EXISTS (SELECT 1 \
                      FROM appends WHERE stream = a.stream AND version > a.version))";
        assert_eq!(self.connection().execute(delete, []).unwrap(), 1);
        let Books { verified, .. } = self.with_store(Books::read);
        assert!(verified.iter().any(|found| found.contains("its last version is")), "{verified:?}");
    }
}
