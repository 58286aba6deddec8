//! amends-plugins
