//! amends-api
