//! What stands above the file: flags, then the environment.

use std::collections::BTreeMap;

use clap::Args;

/// Flags that every verb takes that reads a config. Each stands above its variable, and that
/// above the file. Paths count from the config file's folder, wherever they are said.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Above the config file")]
pub struct OverrideFlags {
    /// host.name [env: AMENDS_NAME]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// host.listen [env: AMENDS_LISTEN]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// host.tls [env: AMENDS_TLS]
    #[arg(long, value_name = "proxy")]
    pub tls: Option<String>,
    /// host.address [env: AMENDS_ADDRESS]
    #[arg(long, value_name = "URL")]
    pub address: Option<String>,
    /// host.memory_max [env: AMENDS_MEMORY_MAX]
    #[arg(long, value_name = "SIZE")]
    pub memory_max: Option<String>,
    /// store.url [env: AMENDS_STORE_URL]
    #[arg(long, value_name = "URL")]
    pub store_url: Option<String>,
    /// store.durability [env: AMENDS_STORE_DURABILITY]
    #[arg(long, value_name = "full|relaxed")]
    pub store_durability: Option<String>,
    /// store.retention [env: AMENDS_STORE_RETENTION]
    #[arg(long, value_name = "DURATION")]
    pub store_retention: Option<String>,
    /// store.archive [env: AMENDS_STORE_ARCHIVE]
    #[arg(long, value_name = "FOLDER")]
    pub store_archive: Option<String>,
    /// plugins.dir [env: AMENDS_PLUGINS_DIR]
    #[arg(long, value_name = "FOLDER")]
    pub plugins_dir: Option<String>,
    /// plugins.cache [env: AMENDS_CACHE]
    #[arg(long, value_name = "FOLDER")]
    pub cache: Option<String>,
}

/// The variables that are set: those of the process, or those of a test.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The process's own. Variables that are not UTF-8 count as not set.
    #[must_use]
    pub(crate) fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// The value of a variable, if it is set.
    #[must_use]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl std::fmt::Debug for Environment {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What stands above the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// First.
    pub flags: OverrideFlags,
    /// Second. Secrets are read from it, too.
    pub environment: Environment,
}

impl Overrides {
    /// These flags, and the environment of the process.
    #[must_use]
    pub fn of_process(flags: OverrideFlags) -> Self {
        Self { flags, environment: Environment::of_process() }
    }
}
