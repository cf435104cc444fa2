//! The values that the file, the environment and the command line set, each with its source.

use std::fmt;

use toml::de::DeTable;
use toml::{Table, Value};

use super::{Config, ConfigError};
use crate::setting::Setting;

/// Prefix of the environment variables that set something: `COPYDESK__SECTION__NAME`.
pub const ENVIRONMENT_PREFIX: &str = "COPYDESK__";

/// A flag of the command line that sets a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The flag, as `--listen`.
    pub name: &'static str,
    /// The setting, as `server.listen`.
    pub setting: &'static str,
    /// Its value.
    pub value: String,
}

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingSource {
    /// In the configuration file.
    File {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
    },
    /// By an environment variable.
    Variable(String),
    /// By a flag of the command line.
    Flag(&'static str),
    /// Nowhere: it is the default.
    Default,
}

impl fmt::Display for SettingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One value that was set.
#[derive(Debug)]
struct SetValue {
    section: String,
    name: String,
    value: Value,
    /// The value as a variable or flag wrote it, before it was read as TOML.
    text: Option<String>,
    source: SettingSource,
}

/// The values that were set, at most one for each setting: a later source replaces the value of an earlier one.
#[derive(Debug, Default)]
pub(super) struct SetValues(Vec<SetValue>);

impl SetValues {
    /// Adds the values of a configuration file.
    pub(super) fn add_file(&mut self, path: &str, text: &str) -> Result<(), ConfigError> {
        let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
        let syntax = |error: &toml::de::Error| ConfigError::Syntax {
            file: path.to_owned(),
            line: line(error.span().map_or(0, |span| span.start)),
            message: one_line(error.message()),
        };
        // Parsed twice: once for the values, once for their places.
        let table: Table = toml::from_str(text).map_err(|error| syntax(&error))?;
        let spans = DeTable::parse(text).map_err(|error| syntax(&error))?;

        for (section, span) in spans.get_ref() {
            let source = |at| SettingSource::File {
                path: path.to_owned(),
                line: line(at),
            };
            let name = section.get_ref().as_ref();
            let (Some(settings), Some(Value::Table(values))) =
                (span.get_ref().as_table(), table.get(name))
            else {
                let message = format!("{name} is not in a section; {}", sections_of_config());
                return Err(setting_error(source(section.span().start), message));
            };
            check_section(name).map_err(|it| setting_error(source(section.span().start), it))?;
            for setting in settings.keys() {
                let key = setting.get_ref().as_ref();
                let Some(value) = values.get(key) else {
                    continue;
                };
                self.add(SetValue {
                    section: name.to_owned(),
                    name: key.to_owned(),
                    value: value.clone(),
                    text: None,
                    source: source(setting.span().start),
                });
            }
        }
        Ok(())
    }

    /// Adds the value of an environment variable.
    pub(super) fn add_variable(
        &mut self,
        variable: String,
        text: String,
    ) -> Result<(), ConfigError> {
        let key = variable[ENVIRONMENT_PREFIX.len()..].to_lowercase();
        let source = SettingSource::Variable(variable);
        let Some((section, name)) = key.split_once("__") else {
            let message = format!(
                "a variable names a section and a setting: {ENVIRONMENT_PREFIX}SECTION__SETTING"
            );
            return Err(setting_error(source, message));
        };
        check_section(section).map_err(|message| setting_error(source.clone(), message))?;
        self.add(SetValue {
            section: section.to_owned(),
            name: name.to_owned(),
            value: parse_text(&text),
            text: Some(text),
            source,
        });
        Ok(())
    }

    /// Adds the value of a flag.
    pub(super) fn add_flag(&mut self, flag: &Flag) {
        let (section, name) = flag.setting.split_once('.').unwrap_or(("", flag.setting));
        self.add(SetValue {
            section: section.to_owned(),
            name: name.to_owned(),
            value: Value::String(flag.value.clone()),
            text: Some(flag.value.clone()),
            source: SettingSource::Flag(flag.name),
        });
    }

    fn add(&mut self, set: SetValue) {
        self.0
            .retain(|old| (&old.section, &old.name) != (&set.section, &set.name));
        self.0.push(set);
    }

    /// Checks the name, the type and the range of each value.
    pub(super) fn check_each(&mut self) -> Result<(), ConfigError> {
        let defaults = Config::default();
        for set in &mut self.0 {
            set.check(&defaults)
                .map_err(|message| setting_error(set.source.clone(), message))?;
        }
        Ok(())
    }

    /// All values as one table of sections.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new();
        for set in &self.0 {
            let section = table
                .entry(set.section.clone())
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(section) = section {
                section.insert(set.name.clone(), set.value.clone());
            }
        }
        table
    }

    /// An error that concerns `settings`, at the source of the first of them that was set.
    pub(super) fn error(&self, settings: &[&str], message: String) -> ConfigError {
        let source_of = |key: &&str| {
            let is_key = |set: &&SetValue| format!("{}.{}", set.section, set.name) == **key;
            self.0.iter().find(is_key).map(|set| set.source.clone())
        };
        let source = settings.iter().find_map(source_of);
        setting_error(source.unwrap_or(SettingSource::Default), message)
    }
}

impl SetValue {
    /// Checks the value alone, all others being the defaults.
    fn check(&mut self, defaults: &Config) -> Result<(), String> {
        let key = format!("{}.{}", self.section, self.name);
        let declared = settings_of(defaults, &self.section);
        let Some(setting) = declared.iter().find(|it| it.name == self.name) else {
            let names: Vec<&str> = declared.iter().map(|it| it.name).collect();
            return Err(format!(
                "unknown setting {key}; [{}] has {}",
                self.section,
                names.join(", ")
            ));
        };

        // A text that reads as a number, such as a password of digits, is still a text where the setting is one.
        let parsed = self.config_of(&self.value).or_else(|error| {
            let text = self.text.clone().map(Value::String).ok_or(&error);
            let config = text.and_then(|text| {
                let config = self.config_of(&text).map_err(|_| &error)?;
                self.value = text;
                Ok(config)
            });
            config.map_err(|_| error.clone())
        });
        let out_of_range = |least, most| {
            let value = &self.value;
            Err(format!("{key} is {value}, but must be {least} to {most}"))
        };
        match (parsed, setting.number) {
            (Ok(config), None) => drop(config),
            (Ok(config), Some(_)) => {
                let settings = settings_of(&config, &self.section);
                let set = settings.iter().find(|it| it.name == self.name);
                if let Some(number) = set.and_then(|it| it.number)
                    && !number.is_in_range()
                {
                    return out_of_range(number.least, number.most);
                }
            }
            (Err(_), Some(number)) => return out_of_range(number.least, number.most),
            (Err(_), None) if setting.is_secret => {
                return Err(format!("{key} has a value that cannot be used (not shown)"));
            }
            (Err(error), None) => return Err(format!("{key} is {}: {error}", self.value)),
        }
        Ok(())
    }

    /// The default configuration with only this setting changed.
    fn config_of(&self, value: &Value) -> Result<Config, String> {
        let section = Table::from_iter([(self.name.clone(), value.clone())]);
        let table = Table::from_iter([(self.section.clone(), Value::Table(section))]);
        table
            .try_into()
            .map_err(|error: toml::de::Error| one_line(error.message()))
    }
}

/// Reads the text of a variable. Numbers, truth values and lists are written as in the file, texts also without quotes.
fn parse_text(text: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}"));
    let value = parsed.ok().and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// The settings of a section; none if there is no such section.
pub(super) fn settings_of(config: &Config, section: &str) -> Vec<Setting> {
    let sections = config.sections();
    let found = sections.iter().find(|(name, _)| *name == section);
    found.map_or_else(Vec::new, |(_, section)| section.settings())
}

fn check_section(section: &str) -> Result<(), String> {
    let config = Config::default();
    if config.sections().iter().any(|(name, _)| *name == section) {
        return Ok(());
    }
    Err(format!(
        "unknown section {section}; {}",
        sections_of_config()
    ))
}

fn sections_of_config() -> String {
    let config = Config::default();
    let names = config.sections().map(|(name, _)| name);
    format!("the sections are {}", names.join(", "))
}

fn setting_error(source_of_value: SettingSource, message: String) -> ConfigError {
    ConfigError::Setting {
        source_of_value,
        message,
    }
}

pub(super) fn one_line(message: &str) -> String {
    let lines: Vec<&str> = message.split('\n').map(str::trim).collect();
    lines.join(" ")
}
