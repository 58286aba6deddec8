//! How answers about the store are printed.

/// How an answer about the store is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StoreFormat {
    /// For people.
    Table,
    /// One JSON document.
    Json,
}
