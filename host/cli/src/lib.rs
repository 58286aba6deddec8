//! amends
