//! Tests of the configuration.

use super::*;

fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    load_with(text, environment, &[])
}

fn load_with(text: &str, environment: &[(&str, &str)], flags: &[Flag]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(Some(&path), environment, flags).map_err(|error| {
        error
            .to_string()
            .replace(&format!("{}/", folder.path().display()), "")
    })
}

#[test]
fn error_names_the_line_the_value_and_the_allowed_values() {
    for (text, words) in [
        (
            "[gateway]\nsokets_max = 1\n",
            &["config.toml:2: ", "sokets_max", "sockets_max"][..],
        ),
        (
            "\n\n[gatewai]\n",
            &["config.toml:3: ", "unknown section gatewai", " gateway,"],
        ),
        (
            "[gateway]\nsockets_max = \"many\"\n",
            &[
                "config.toml:2: ",
                "gateway.sockets_max is \"many\"",
                "must be 1 to",
            ],
        ),
        (
            "[gateway]\n# sockets_max\nsockets_max = 0\n",
            &["config.toml:3: ", "must be 1 to"],
        ),
        (
            "[server]\nlisten = \"here\"\n",
            &["config.toml:2: ", "socket address"],
        ),
        (
            "[log]\nlevel = \"a=b=c\"\n",
            &["config.toml:2: ", "is not a filter"],
        ),
        (
            "[log]\nformat = \"pretty\"\n",
            &["config.toml:2: ", "`auto`, `human`, `json`"],
        ),
        (
            "[gateway]\nidle_timeout_ms = 20000\n",
            &["config.toml:2: ", "must be longer than"],
        ),
        (
            "[postgres]\nclaim_connections = 2\n",
            &["config.toml:2: ", "must be 3 to"],
        ),
        (
            "[postgres]\nconnect_timeout_ms = 0\n",
            &["config.toml:2: ", "must be 100 to"],
        ),
        (
            "[node]\nheartbeat_ms = 1000\n[postgres]\nnode_dead_after_ms = 2999\n",
            &["config.toml:4: ", "must be at least 3000"],
        ),
        (
            "[redis]\ninbox_bytes_max = 1\n",
            &["config.toml:2: ", "must be 1048576 to"],
        ),
        (
            "[redis]\nqueue_bytes_max = 8388608\n",
            &["config.toml:2: ", "must be at least 16777216"],
        ),
        ("what", &["config.toml:1: "]),
        (
            "[auth]\nmode = \"tokens\"\n",
            &["config.toml:2: ", "token_keys must name"],
        ),
        (
            "[auth]\nmode = \"tokens\"\ntoken_secret = \"short\"\n",
            &["config.toml:3: ", "at least 32 bytes"],
        ),
        (
            "[auth]\nmode = \"tokens\"\ntoken_keys = \"http://keys.example.org/\"\n",
            &["config.toml:3: ", "by https"],
        ),
        (
            "[auth]\n\norigins = [\"https://app.example.org/page\"]\n",
            &["config.toml:3: ", "without a path"],
        ),
        (
            "[tls]\ncert = \"cert.pem\"\n",
            &["config.toml:", "tls.key is empty"],
        ),
    ] {
        let error = load_text(text, &[]).unwrap_err();
        for word in words {
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }
}

#[test]
fn environment_overrides_the_file() {
    let text = "[gateway]\nsockets_max = 5\n";
    let environment = [
        ("COPYDESK__GATEWAY__SOCKETS_MAX", "7"),
        ("COPYDESK__SERVER__LISTEN", "127.0.0.1:9"),
        ("COPYDESK__DOCUMENT__TAIL_ENTRIES_MAX", "3"),
        ("OTHER", "x"),
    ];
    let config = load_text(text, &environment).unwrap();
    assert_eq!(config.gateway.sockets_max, 7);
    assert_eq!(config.server.listen.port(), 9);
    assert_eq!(config.node.document.tail_entries_max, 3);
    for (name, value, word) in [
        (
            "COPYDESK__GATEWAY__SOKETS_MAX",
            "7",
            "unknown setting gateway.sokets_max",
        ),
        ("COPYDESK__GATEWAY__SOCKETS_MAX", "0", "must be 1 to"),
        (
            "COPYDESK__GATEWAY__SOCKETS_MAX",
            "x",
            "is \"x\", but must be 1 to",
        ),
        ("COPYDESK__GATEWAY", "x", "a section and a setting"),
        ("COPYDESK__AUTH__MODE", "tokens", "token_keys must name"),
    ] {
        let error = load_text(text, &[(name, value)]).unwrap_err();
        assert!(error.starts_with(name) && error.contains(word), "{error}");
    }
}

/// Settings that depend on each other may come in any order, and some of them from the file.
#[test]
fn dependent_settings_are_checked_after_merging() {
    let secret = "a secret of at least thirty-two bytes";
    let text = "[auth]\nmode = \"tokens\"\n[gateway]\nping_interval_ms = 60000\n";
    let environment = [
        ("COPYDESK__GATEWAY__PING_INTERVAL_MS", "50000"),
        ("COPYDESK__AUTH__TOKEN_SECRET", secret),
        ("COPYDESK__REDIS__URL", "redis://here"),
        ("COPYDESK__POSTGRES__URL", "postgres://here/db"),
        ("COPYDESK__GATEWAY__IDLE_TIMEOUT_MS", "90000"),
    ];
    let config = load_text(text, &environment).unwrap();
    assert_eq!(config.auth.token_secret.0, secret);
    assert_eq!(config.gateway.idle_timeout_ms, 90_000);
}

/// The error names the line, the setting, its value and the allowed range.
#[test]
fn every_number_of_the_shipped_file_is_refused_outside_its_range() {
    let text = include_str!("../../config.toml");
    let mut section = "";
    let mut checked = 0;
    for (number, line) in text.lines().enumerate() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        let Some((name, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let key = format!("{section}.{name}");
        if value.parse::<u64>().is_err() {
            continue;
        }
        checked += 1;
        for outside in ["-1", "9223372036854775807"] {
            let changed: Vec<String> = text
                .lines()
                .enumerate()
                .map(|(at, line)| {
                    if at == number {
                        format!("{name} = {outside}")
                    } else {
                        line.to_owned()
                    }
                })
                .collect();
            let error = load_text(&changed.join("\n"), &[]).expect_err(&key);
            let place = format!("config.toml:{}: ", number + 1);
            assert!(error.contains(&place), "{key} = {outside}: {error}");
            let says_what = error.contains(&format!("{key} is {outside}, but must be "));
            assert!(says_what, "{key} = {outside}: {error}");
        }
    }
    assert!(checked > 50, "{checked}");
}

/// The shipped Kubernetes secret sets this pair, and the order of the environment is not defined.
#[test]
fn environment_is_checked_in_any_order() {
    let redis = ("COPYDESK__REDIS__URL", "redis://here");
    let postgres = ("COPYDESK__POSTGRES__URL", "postgres://here/db");
    for environment in [[redis, postgres], [postgres, redis]] {
        let config = load_text("", &environment).expect("a complete configuration");
        assert!(config.is_shared() && config.redis.url.is_some());
    }
    let error = load_text("", &[redis]).unwrap_err();
    assert!(
        error.starts_with("COPYDESK__REDIS__URL: redis.url is for the nodes of a cluster"),
        "{error}"
    );
}

#[test]
fn a_count_of_connections_is_at_least_one() {
    let error = load_text("[postgres]\npeople_connections = 0\n", &[]).unwrap_err();
    assert_eq!(
        error,
        "config.toml:2: postgres.people_connections is 0, but must be 1 to 100"
    );
}

#[test]
fn flags_override_the_environment_and_the_file() {
    let flag = |name, setting, value: &str| Flag {
        name,
        setting,
        value: value.to_owned(),
    };
    // The file alone is refused: the flag completes it.
    let text = "[redis]\nurl = \"redis://file\"\n[server]\nlisten = \"127.0.0.1:1\"\n";
    let environment = [("COPYDESK__SERVER__LISTEN", "127.0.0.1:2")];
    let flags = [
        flag("--listen", "server.listen", "127.0.0.1:3"),
        flag("--store", "postgres.url", "postgres://here/db"),
    ];
    let config = load_with(text, &environment, &flags).expect("a complete configuration");
    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(config.postgres.url, "postgres://here/db");

    for (wrong, words) in [
        (
            flag("--listen", "server.listen", "here"),
            "--listen: server.listen is \"here\": invalid socket address",
        ),
        (
            flag("--redis", "redis.url", "http://:hunter2@here"),
            "--redis: redis.url has a value that cannot be used",
        ),
    ] {
        let error = load_with("", &[], &[wrong]).unwrap_err();
        assert!(
            error.starts_with(words) && !error.contains("hunter2"),
            "{error}"
        );
    }
}

#[test]
fn text_of_digits_is_accepted_where_the_setting_is_a_text() {
    let environment = [
        ("COPYDESK__SERVER__NODE", "7"),
        ("COPYDESK__SERVER__THREADS", "2"),
        (
            "COPYDESK__AUTH__TOKEN_SECRET",
            "12345678901234567890123456789012",
        ),
    ];
    let config = load_text("", &environment).expect("texts and a number");
    assert_eq!(
        (config.server.node.as_str(), config.server.threads),
        ("7", 2)
    );
    assert_eq!(
        config.auth.token_secret.0,
        "12345678901234567890123456789012"
    );
}

/// The shipped file with the value of one line replaced.
fn shipped_with(number: usize, name: &str, value: &str) -> String {
    let lines = include_str!("../../config.toml").lines().enumerate();
    let changed = lines.map(|(at, line)| match at == number {
        true => format!("{name} = {value}"),
        false => line.to_owned(),
    });
    changed.collect::<Vec<_>>().join("\n")
}

/// The line of each setting in the shipped file.
fn shipped_settings() -> std::collections::BTreeMap<String, usize> {
    let mut section = "";
    let mut settings = std::collections::BTreeMap::new();
    for (number, line) in include_str!("../../config.toml").lines().enumerate() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            settings.insert(format!("{section}.{name}"), number);
        }
    }
    settings
}

#[test]
fn the_shipped_file_has_every_setting_with_its_default() {
    let text = include_str!("../../config.toml");
    let shipped: Config = toml::from_str(text).expect("the shipped file");
    assert!(shipped == Config::default(), "{shipped:#?}");
    let written = shipped_settings();
    for (section, declared) in shipped.sections() {
        for setting in declared.settings() {
            let key = format!("{section}.{}", setting.name);
            assert!(written.contains_key(&key), "config.toml lacks {key}");
        }
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(
            !line.trim_start().starts_with('#'),
            "a comment begins at the start of its line: {line}"
        );
    }
}

/// The comparison above sees every setting: another value in the file is another configuration.
#[test]
fn another_value_of_any_number_is_another_configuration() {
    let written = shipped_settings();
    let defaults = Config::default();
    for (section, declared) in defaults.sections() {
        for setting in declared.settings() {
            let Some(number) = setting.number else {
                continue;
            };
            let other = match number.value == number.least {
                true => number.least + 1,
                false => number.least,
            };
            let key = format!("{section}.{}", setting.name);
            let text = shipped_with(written[&key], setting.name, &other.to_string());
            let changed: Config = toml::from_str(&text).expect("the shipped file");
            assert!(changed != defaults, "{key} = {other} makes no difference");
        }
    }
}
