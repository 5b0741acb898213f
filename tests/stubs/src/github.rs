//! GitHub's REST API, as far as memguard uses it.
