//! amends-runtime
