//! amends-plugin-prescription
