//! The two text formats, and which one is wanted.

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' own.
    Text,
    OpenMetrics,
}

impl Format {
    /// Prometheus 3 takes a page by its content type alone, and refuses one that it does not know.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus_client::encoding::prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// By the header Accept (RFC 9110, 12.5.1). Who asks for nothing in particular, or for nothing that there is, gets the
    /// format that everybody can read.
    pub(super) fn wanted(accept: &str) -> Self {
        let mut best = (0.0, Self::Text);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "application/openmetrics-text" => Self::OpenMetrics,
                "text/plain" | "text/*" | "*/*" => Self::Text,
                _ => continue,
            };
            let mut weight = 1.0;
            let mut known = true;
            for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => weight = value.trim().parse().unwrap_or(0.0),
                    "version" => known = format.has_version(value.trim()),
                    _ => {}
                }
            }
            // NaN is none.
            if known && weight > best.0 {
                best = (weight, format);
            }
        }
        best.1
    }

    fn has_version(self, version: &str) -> bool {
        match self {
            Self::Text => version == "0.0.4",
            Self::OpenMetrics => version == "1.0.0",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_is_asked_for_most() {
        // What Prometheus 2.42 and 3.5 send, and a browser, and curl.
        for accept in [
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "Application/OpenMetrics-Text ; Version=1.0.0",
            "application/openmetrics-text",
            "text/plain;q=0.5, application/openmetrics-text",
        ] {
            assert_eq!(Format::wanted(accept), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/plain;version=0.0.4",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=2.0.0, text/plain;q=0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=NaN, */*",
            "application/openmetrics-text;q=x",
            "application/openmetrics-text;q=0.3,text/plain;version=0.0.4;q=0.6",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
            ";;;=,,q=1",
        ] {
            assert_eq!(Format::wanted(accept), Format::Text, "{accept}");
        }
    }

    #[test]
    fn content_types_are_to_the_letter() {
        assert_eq!(Format::Text.content_type(), "text/plain; version=0.0.4; charset=utf-8");
        assert_eq!(Format::OpenMetrics.content_type(), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    }
}
