//! JavaScript, by componentize-js: the engine goes into the component, with the source already run
//! to the end of its modules.

use std::path::Path;
use std::process::Command;

use super::WORLD;
use super::tool::{need, run};

const REMEDY: &str = "as root on Debian: apt-get install nodejs npm (Node.js 20 or later)";

/// What a plugin's JavaScript does without: the host grants no standard streams, and HTTP, clocks
/// and randomness would each be an import that most plugins never use.
const SCRIPT: &str = "
import { componentize } from '@bytecodealliance/componentize-js';
import { writeFile } from 'node:fs/promises';
const [world, file] = process.argv.slice(-2);
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
    if !dir.join("node_modules/@bytecodealliance/componentize-js").is_dir() {
        let npm = need("npm", REMEDY)?;
        let install = ["install", "--no-audit", "--no-fund"];
        run(Command::new(npm).args(install).current_dir(dir))?;
    }
    let script = ["--input-type=module", "--eval", SCRIPT, "--", WORLD];
    run(Command::new(node).args(script).arg(made).current_dir(dir))
}
