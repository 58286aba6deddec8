//! What `host/packaging` has: the container image, the manifests for Kubernetes and the Debian package. Each runs the
//! real binary in a root file system of its own.
//!
//! Deliberately absent: engines of containers, a cluster, and compiling with the profile `dist`.

mod container;
mod debian;
mod image;
mod kubernetes;
mod root;
