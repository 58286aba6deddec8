//! amends-plugin-inventory-release
