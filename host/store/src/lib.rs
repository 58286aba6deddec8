//! amends-store
