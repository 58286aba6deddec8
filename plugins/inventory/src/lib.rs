//! amends-plugin-inventory
