use super::*;
use crate::github::{Source, settings::web_address};

fn transport(settings: &Settings, environment: Environment) -> Result<Transport, SetupError> {
    Transport::new(settings, &web_address(&settings.url).unwrap(), environment)
}

fn environment(set: &[(&str, &str)]) -> Environment {
    Environment::from(|name| set.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned()))
}

/// Trusts a certificate, so that machines without any can run the tests.
fn settings(folder: &tempfile::TempDir) -> Settings {
    let path = folder.path().join("ca.pem");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&path, made.cert.pem()).unwrap();
    Settings { ca_file: Some(path), ..Settings::new(Source::Token("/t".into())) }
}

#[test]
fn a_proxy_comes_from_the_settings_or_the_usual_variables() {
    let folder = tempfile::tempdir().unwrap();
    let usual = settings(&folder);
    let proxy = |settings: &Settings, set: &[(&str, &str)]| {
        transport(settings, environment(set)).unwrap().proxy().map(ToString::to_string)
    };
    let proxied = |text: &str| Some(format!("{text}/"));
    assert_eq!(proxy(&usual, &[]), None);
    assert_eq!(proxy(&usual, &[("HTTPS_PROXY", "http://p:3128")]), proxied("http://p:3128"));
    assert_eq!(proxy(&usual, &[("https_proxy", "p:3128")]), proxied("http://p:3128"));
    assert_eq!(proxy(&usual, &[("ALL_PROXY", "https://p:3128")]), proxied("https://p:3128"));
    assert_eq!(proxy(&usual, &[("HTTP_PROXY", "http://p:3128")]), None);
    let set = [("HTTPS_PROXY", "http://p:3128"), ("NO_PROXY", "internal.example, github.com")];
    assert_eq!(proxy(&usual, &set), None, "api.github.com is below github.com");
    let own = Settings { proxy: Some("http://own:1".to_owned()), ..usual.clone() };
    assert_eq!(proxy(&own, &set[..1]), proxied("http://own:1"));
    assert_eq!(proxy(&own, &set), None);
    let here = Settings { url: "http://127.0.0.1:1".to_owned(), ..own };
    assert_eq!(proxy(&here, &[]), None);
}

#[test]
fn a_proxys_password_is_used_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let set = [("HTTPS_PROXY", "http://user:c2VjcmV0@p:3128")];
    let transport = transport(&settings(&folder), environment(&set)).unwrap();
    let shown = format!("{transport:?} {:?}", transport.proxy());
    assert!(shown.contains("p:3128") && !shown.contains("c2VjcmV0"), "{shown}");
    let bad = Settings { proxy: Some("http://user:c2VjcmV0@p:3128".to_owned()), ..settings(&folder) };
    let error = self::transport(&bad, Environment::default()).err().unwrap();
    let error = format!("{error} {error:?}");
    assert!(error.contains("HTTPS_PROXY") && !error.contains("c2VjcmV0"), "{error}");
    let error = self::transport(&settings(&folder), environment(&[("ALL_PROXY", "socks5://u:c2VjcmV0@p:1")]));
    let error = error.err().unwrap().to_string();
    assert!(error.contains("ALL_PROXY") && error.contains("github.proxy") && !error.contains("c2VjcmV0"), "{error}");
}

#[test]
fn certificates_that_are_none_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder);
    let path = settings.ca_file.clone().unwrap();
    for text in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&path, text).unwrap();
        let error = transport(&settings, Environment::default()).err().unwrap().to_string();
        assert!(error.contains("ca.pem") && error.contains("certificate"), "{error}");
    }
    std::fs::remove_file(&path).unwrap();
    let error = transport(&settings, Environment::default()).err().unwrap().to_string();
    assert!(error.contains("look at its path"), "{error}");
}

#[test]
fn redirections_stay_on_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { url: "https://ghes.example:8443".to_owned(), ..settings(&folder) };
    let transport = transport(&settings, Environment::default()).unwrap();
    let leads = |location: &str| {
        let headers = [(header::LOCATION, HeaderValue::from_str(location).unwrap())].into_iter().collect();
        transport.redirection(&Answer::new(307, headers, Vec::new(), SecretString::from("x")))
    };
    for location in ["https://ghes.example:8443/api/v3/repositories/5/x?y=1", "/api/v3/repositories/5/x?y=1"] {
        assert_eq!(leads(location).unwrap(), "/api/v3/repositories/5/x?y=1");
    }
    for location in [
        "https://ghes.example/api/v3/x",
        "https://ghes.example.evil:8443/x",
        "http://ghes.example:8443/x",
        "//evil:8443/x",
        "https://evil@ghes.example:8443/x",
        "https://ghes.example:8443@evil/x",
        "",
        "nonsense",
    ] {
        assert!(leads(location).is_err(), "{location}: {:?}", leads(location));
    }
}
