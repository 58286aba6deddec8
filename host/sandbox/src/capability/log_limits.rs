//! How much of what a component says is written to the log.

/// Log lines of one call; the rest is counted and dropped.
pub(crate) const LOG_LINES_MAX: u32 = 100;

/// Bytes of one log line, its fields included; the rest is cut.
pub(crate) const LOG_LINE_BYTES_MAX: usize = 4_096;
