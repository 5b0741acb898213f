//! The Kubernetes API, as far as memguard uses it.
