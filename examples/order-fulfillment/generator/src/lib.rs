//! amends-example-orders
