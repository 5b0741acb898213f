//! Quantities of resources as manifests have them.

use anyhow::{Context as _, ensure};
use serde_json::Value;

const SUFFIXES: [(&str, f64); 10] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("", 1.0),
];

/// In bytes or cores.
fn number(quantity: &Value) -> anyhow::Result<f64> {
    let text = quantity.as_str().map_or_else(|| quantity.to_string(), str::to_owned);
    let parsed = SUFFIXES
        .into_iter()
        .find_map(|(suffix, unit)| Some(text.strip_suffix(suffix)?.parse::<f64>().ok()? * unit))
        .with_context(|| format!("{text:?} is no quantity"))?;
    ensure!(parsed.is_finite() && parsed >= 0.0, "{text:?} is no quantity");
    Ok(parsed)
}

/// Requests and limits of one container; a limit without a request is both.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Resources {
    pub(crate) memory_request: Option<i64>,
    pub(crate) memory_limit: Option<i64>,
    pub(crate) cpu_request: Option<f64>,
    pub(crate) cpu_limit: Option<f64>,
}

impl Resources {
    pub(crate) fn of(container: &Value) -> anyhow::Result<Self> {
        let of = |kind: &str, name: &str| -> anyhow::Result<Option<f64>> {
            let value = &container["resources"][kind][name];
            let wrong = || format!("resources.{kind}.{name} of container {}", container["name"]);
            if value.is_null() { Ok(None) } else { number(value).map(Some).with_context(wrong) }
        };
        #[allow(clippy::cast_possible_truncation, reason = "a conversion of floats saturates, and bytes are whole")]
        let bytes = |amount: Option<f64>| amount.map(|amount| amount as i64);
        let (memory_limit, cpu_limit) = (bytes(of("limits", "memory")?), of("limits", "cpu")?);
        Ok(Self {
            memory_request: bytes(of("requests", "memory")?).or(memory_limit),
            memory_limit,
            cpu_request: of("requests", "cpu")?.or(cpu_limit),
            cpu_limit,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it asks for exactly what it is limited to.
    pub(crate) fn is_guaranteed(&self) -> bool {
        self.memory_limit.is_some()
            && self.cpu_limit.is_some()
            && (self.memory_request, self.cpu_request) == (self.memory_limit, self.cpu_limit)
    }

    /// `MilliCPUToShares` of pkg/kubelet/cm.
    pub(crate) fn cpu_shares(&self) -> i64 {
        #[allow(clippy::cast_possible_truncation, reason = "a conversion of floats saturates")]
        let shares = (self.cpu_request.unwrap_or_default() * 1024.0) as i64;
        shares.clamp(2, 262_144)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, value) in [("96Mi", 100_663_296.0), ("1Gi", 1_073_741_824.0), ("20m", 0.02), ("2", 2.0), ("3M", 3e6)]
        {
            assert!((number(&json!(text)).unwrap() - value).abs() < 1e-9, "{text}");
        }
        assert!((number(&json!(2)).unwrap() - 2.0).abs() < 1e-9);
        for wrong in ["", "Mi", "much", "-1", "1Xi", "inf"] {
            assert!(number(&json!(wrong)).unwrap_err().to_string().contains("no quantity"), "{wrong}");
        }
    }

    #[test]
    fn a_limit_is_a_request_where_there_is_none() {
        let read = |resources: Value| Resources::of(&json!({"name": "c", "resources": resources})).unwrap();
        let limited = read(json!({"limits": {"memory": "64Mi"}}));
        assert_eq!((limited.memory_request, limited.memory_limit), (Some(64 << 20), Some(64 << 20)));
        assert!(!limited.is_guaranteed() && !limited.is_empty());
        assert!(read(json!({"limits": {"memory": "64Mi", "cpu": 1}})).is_guaranteed());
        assert!(read(Value::Null).is_empty());
        assert_eq!(read(json!({"requests": {"cpu": "20m"}})).cpu_shares(), 20);
        assert_eq!(read(Value::Null).cpu_shares(), 2);
    }
}
