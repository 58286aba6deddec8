//! amends-sdk
