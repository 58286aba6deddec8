//! amends-plugin-shipment
