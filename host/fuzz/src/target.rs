//! The loop: picks an input, changes it, and has it checked.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crate::bytes::{Around, change_bytes, change_text};
use crate::json::change_json;
use crate::random::Random;
use crate::shrink::shrink;
use crate::wasm::change_wasm;
use crate::watch::Watch;

/// How long a target runs when the environment does not say.
const TIME_DEFAULT: Duration = Duration::from_secs(1);

/// Inputs that are kept because they came to something new, and bytes of them together.
const KEPT_MAX: usize = 4_096;
const KEPT_BYTES_MAX: usize = 64 << 20;

/// An input that takes too long is tried again so often: machines are shared.
const SLOW_TRIES: u32 = 3;

/// Bytes of a failing input that are printed; all of it stands in a file.
const SHOWN_BYTES_MAX: usize = 2_048;

/// Characters of what came of an input that tell it from another.
const OUTCOME_CHARS_MAX: usize = 160;

/// How inputs are changed.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// As bytes.
    Bytes,
    /// As lines and words.
    Text,
    /// As JSON, and as text.
    Json,
    /// As a WebAssembly module or component, and as bytes.
    Wasm,
    /// By this, and as text. It is given the words of the target.
    Own(fn(&mut Random, &mut Vec<u8>, &[&str])),
}

/// What is tried.
#[derive(Debug, Clone)]
pub struct Target<'t> {
    /// Its name, for people and for a file.
    pub name: &'t str,
    /// Inputs that make sense; at least one.
    pub seeds: Vec<Vec<u8>>,
    /// Words that may matter.
    pub words: &'t [&'t str],
    /// How inputs are changed.
    pub shape: Shape,
    /// Bytes of an input at most.
    pub bytes_max: usize,
    /// How long an input may take.
    pub time_max: Duration,
}

/// What the environment says.
struct Settings {
    time: Duration,
    seed: u64,
    input: Option<PathBuf>,
}

impl Settings {
    fn of_process() -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            time: number("AMENDS_FUZZ_SECONDS").map_or(TIME_DEFAULT, Duration::from_secs),
            // Short enough to be typed.
            seed: number("AMENDS_FUZZ_SEED").unwrap_or(u64::from(now.subsec_nanos())),
            input: std::env::var_os("AMENDS_FUZZ_INPUT").map(PathBuf::from),
        }
    }
}

impl Target<'_> {
    /// Has inputs checked. The check panics when something does not hold, and else answers in words
    /// what came of the input: a line for each thing of its own.
    ///
    /// # Panics
    /// When the check does, and when an input takes too long.
    pub fn run(&self, mut check: impl FnMut(&[u8]) -> String) {
        let settings = Settings::of_process();
        if let Some(path) = &settings.input {
            let input =
                std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let began = Instant::now();
            let outcome = check(&input);
            println!("fuzz {}: {:?}: {outcome}", self.name, began.elapsed());
            assert!(began.elapsed() <= self.time_max, "it took {:?}", began.elapsed());
            return;
        }
        let watch = Watch::new(self.name, self.time_max);
        let watch = watch.unwrap_or_else(|error| panic!("the input under way: {error}"));
        let kept = Kept::new(&self.seeds);
        let random = Random::new(settings.seed);
        let mut run = Run { target: self, watch, kept, random, seed: settings.seed, inputs: 0 };
        let began = Instant::now();
        for seed in &self.seeds {
            run.try_one(seed, &mut check);
        }
        while began.elapsed() < settings.time {
            let input = run.next();
            run.try_one(&input, &mut check);
        }
        println!(
            "fuzz {}: {} inputs in {:.0?}, AMENDS_FUZZ_SEED={}; {} seeds, {} kept, {} outcomes",
            self.name,
            run.inputs,
            began.elapsed(),
            settings.seed,
            self.seeds.len(),
            run.kept.inputs.len() - self.seeds.len(),
            run.kept.outcomes.len(),
        );
    }
}

/// Inputs to go on from: the seeds, and what came to something new.
struct Kept {
    inputs: Vec<Vec<u8>>,
    seeds: usize,
    bytes: usize,
    outcomes: HashSet<String>,
}

impl Kept {
    fn new(seeds: &[Vec<u8>]) -> Self {
        assert!(!seeds.is_empty(), "a target has a seed");
        Self { inputs: seeds.to_vec(), seeds: seeds.len(), bytes: 0, outcomes: HashSet::new() }
    }

    fn learn(&mut self, random: &mut Random, input: &[u8], outcome: &str) {
        // Each line is learned, also behind one that is new.
        let new = outcome.lines().filter(|line| self.outcomes.insert(form(line)));
        if new.count() == 0 {
            return;
        }
        self.bytes += input.len();
        self.inputs.push(input.to_vec());
        while self.bytes > KEPT_BYTES_MAX || self.inputs.len() > self.seeds + KEPT_MAX {
            let dropped = self.seeds + random.below(self.inputs.len() - self.seeds);
            self.bytes -= self.inputs.swap_remove(dropped).len();
        }
    }

    fn pick(&self, random: &mut Random) -> &[u8] {
        let new = self.inputs.len() - self.seeds;
        // Half of the time one of what is new.
        let from = if new > 0 && random.once_in(2) { self.seeds } else { 0 };
        let found: &Vec<u8> = random.pick(&self.inputs[from..]);
        found
    }
}

/// What came of an input without what is its own: numbers, and what stands between quotes.
fn form(outcome: &str) -> String {
    let (mut form, mut quote) = (String::new(), None);
    for character in outcome.chars() {
        match quote {
            Some(open) if character == open => quote = None,
            Some(_) => continue,
            None if matches!(character, '`' | '"') => quote = Some(character),
            None => {}
        }
        if !character.is_ascii_digit() {
            form.push(character);
        }
        if form.len() >= OUTCOME_CHARS_MAX {
            break;
        }
    }
    form
}

struct Run<'r> {
    target: &'r Target<'r>,
    watch: Watch,
    kept: Kept,
    random: Random,
    seed: u64,
    inputs: u64,
}

impl Run<'_> {
    /// An input that was changed a few times.
    fn next(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let mut input = self.kept.pick(random).to_vec();
        let other = self.kept.pick(random);
        let Target { words, bytes_max, .. } = *self.target;
        let around = Around { other, words, bytes_max };
        let mut times = 1;
        while times < 8 && random.once_in(2) {
            times += 1;
        }
        for _ in 0..times {
            let is_plain = random.once_in(4);
            match self.target.shape {
                Shape::Wasm if !is_plain => change_wasm(random, &mut input, &around),
                Shape::Bytes | Shape::Wasm => change_bytes(random, &mut input, &around),
                Shape::Json if !is_plain && change_json(random, &mut input, words) => {}
                Shape::Own(change) if !is_plain => change(random, &mut input, words),
                Shape::Text | Shape::Json | Shape::Own(_) => {
                    change_text(random, &mut input, &around);
                }
            }
        }
        input.truncate(bytes_max);
        input
    }

    fn try_one(&mut self, input: &[u8], check: &mut impl FnMut(&[u8]) -> String) {
        self.inputs += 1;
        let mut fastest = Duration::MAX;
        for _ in 0..SLOW_TRIES {
            self.watch.begin(input);
            let began = Instant::now();
            let checked = catch_unwind(AssertUnwindSafe(|| check(input)));
            fastest = fastest.min(began.elapsed());
            self.watch.end();
            match checked {
                Ok(outcome) => self.kept.learn(&mut self.random, input, &outcome),
                Err(panic) => {
                    let smallest = quietly(|| {
                        shrink(input, |smaller| {
                            self.watch.begin(smaller);
                            let fails = catch_unwind(AssertUnwindSafe(|| check(smaller))).is_err();
                            self.watch.end();
                            fails
                        })
                    });
                    println!("{}", self.told(&smallest));
                    resume_unwind(panic);
                }
            }
            if fastest <= self.target.time_max {
                return;
            }
        }
        let told = self.told(input);
        panic!("it takes {fastest:?}, at most {:?} are allowed\n{told}", self.target.time_max);
    }

    /// Which input fails, and how it is run again.
    fn told(&mut self, input: &[u8]) -> String {
        self.watch.fail(input);
        let shown: String = input.iter().take(SHOWN_BYTES_MAX).map(|byte| escaped(*byte)).collect();
        let cut = if input.len() > SHOWN_BYTES_MAX { " (cut)" } else { "" };
        format!(
            "fuzz {}: input {} of AMENDS_FUZZ_SEED={}, made smaller to {} bytes{cut}:\n\
             printf '%b' '{shown}'\n\
             run it again with AMENDS_FUZZ_INPUT={}",
            self.target.name,
            self.inputs,
            self.seed,
            input.len(),
            self.watch.path().display()
        )
    }
}

/// As the shell's `printf '%b'` reads it between single quotes.
fn escaped(byte: u8) -> String {
    match byte {
        b'\n' => "\\n".to_owned(),
        b'\\' | b'\'' => format!("\\x{byte:02x}"),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    }
}

/// Without a word of the panics that happen meanwhile.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let done = work();
    set_hook(hook);
    done
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    fn target(name: &str) -> Target<'_> {
        Target {
            name,
            seeds: vec![b"{\"a\":1}".to_vec()],
            words: &["needle"],
            shape: Shape::Json,
            bytes_max: 1_000,
            time_max: Duration::from_millis(200),
        }
    }

    /// What `run` panics with, and where it left its input.
    fn failure(target: &Target<'_>, check: impl FnMut(&[u8]) -> String) -> (String, Vec<u8>) {
        let panic = quietly(|| catch_unwind(AssertUnwindSafe(|| target.run(check)))).unwrap_err();
        let file = format!("amends-fuzz/{}-{}", target.name, std::process::id());
        let path = std::env::temp_dir().join(file);
        let input = std::fs::read(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        (panic.downcast_ref::<String>().unwrap().clone(), input)
    }

    #[test]
    fn an_input_that_fails_is_found_and_made_smaller() {
        let has_word = |input: &[u8]| {
            let text = String::from_utf8_lossy(input);
            assert!(!text.contains("needle"), "found in {}", text.len());
            text.into_owned()
        };
        let (message, input) = failure(&target("finds"), has_word);
        assert!(message.starts_with("found in "), "{message}");
        assert_eq!(input, b"needle");
    }

    #[test]
    fn an_input_that_is_slow_each_time_fails() {
        let slow = |input: &[u8]| {
            std::thread::sleep(Duration::from_millis(if input.len() > 7 { 250 } else { 0 }));
            String::new()
        };
        let (message, input) = failure(&target("slow"), slow);
        assert!(message.contains("at most 200ms are allowed"), "{message}");
        assert!(input.len() > 7);
        let mut tries = 0;
        // Once is the machine.
        let once = |_: &[u8]| {
            tries += 1;
            std::thread::sleep(Duration::from_millis(if tries == 1 { 250 } else { 0 }));
            String::new()
        };
        target("once").run(once);
    }

    #[test]
    fn what_comes_to_something_new_is_changed_further() {
        // Each word is found only in an input that has the one before.
        let mut deepest = 0;
        let target = Target { words: &["one", "two", "three"], ..target("deeper") };
        target.run(|input| {
            let text = String::from_utf8_lossy(input);
            let depth = ["one", "two", "three"].iter().take_while(|word| text.contains(**word));
            let depth = depth.count();
            deepest = deepest.max(depth);
            "new ".repeat(depth) + "\nand the same each time"
        });
        assert_eq!(deepest, 3);
    }

    #[test]
    fn an_outcome_is_told_by_its_form() {
        assert_eq!(form("line 12: there is no `key`"), form("line 7: there is no `other`"));
        assert_ne!(form("line 12: no key"), form("line 12: no table"));
    }

    #[test]
    fn what_is_printed_can_be_made_again() {
        assert_eq!(b"a\n'\\\0\xff".map(escaped).concat(), "a\\n\\x27\\x5c\\x00\\xff");
    }
}
