//! The metadata of a file: typed look-ups by key.
//!
//! Writers disagree about integer widths and signs (`u32` here, `i32` or `u64` there for the same key), so an
//! integer is found under any integer type if its value fits. Everything else must have the type asked for.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::error::{GgufError, Result};
use crate::value::{Array, Value};

/// The keys of a file and their values. Every key is there once.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    values: BTreeMap<String, Value>,
}

impl Metadata {
    /// The value under `key`, of whatever type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// All keys and values, by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// `general.architecture`, which names the family of the model and prefixes its other keys.
    ///
    /// # Errors
    /// If the key is missing or not a string.
    pub fn architecture(&self) -> Result<&str> {
        let key = "general.architecture";
        self.str(key)?.ok_or(GgufError::MissingKey { key: key.into(), expected: "string" })
    }

    /// The integer under `key`; `None` if the key is absent.
    ///
    /// # Errors
    /// If the value is no integer or does not fit.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "u32", |value| u32::try_from(value.as_integer()?).ok())
    }

    /// The integer under `key`; `None` if the key is absent.
    ///
    /// # Errors
    /// If the value is no integer or does not fit.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "u64", Value::as_u64)
    }

    /// The float under `key`, an `f64` rounded; `None` if the key is absent.
    ///
    /// # Errors
    /// If the value is no float.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "f32", Value::as_f32)
    }

    /// The boolean under `key`; `None` if the key is absent.
    ///
    /// # Errors
    /// If the value is no boolean.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "bool", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// The string under `key`; `None` if the key is absent.
    ///
    /// # Errors
    /// If the value is no string.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "string", |value| match value {
            Value::String(value) => Some(value.as_str()),
            _ => None,
        })
    }

    /// The array of strings under `key`; `None` if the key is absent.
    ///
    /// # Errors
    /// If the value is no array of strings.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "array of string", |value| match value {
            Value::Array(Array::String(values)) => Some(values.as_slice()),
            _ => None,
        })
    }

    /// The array of floats under `key`, `f64` rounded; `None` if the key is absent.
    ///
    /// # Errors
    /// If the value is no array of floats.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.typed(key, "array of f32", |value| match value {
            Value::Array(Array::F32(values)) => Some(values.clone()),
            Value::Array(Array::F64(values)) => Some(values.iter().map(|&value| value as f32).collect()),
            _ => None,
        })
    }

    /// The array of integers under `key`; `None` if the key is absent.
    ///
    /// # Errors
    /// If the value is no array of integers or one of them does not fit.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.typed(key, "array of i32", integers)
    }

    /// The array of integers under `key`; `None` if the key is absent.
    ///
    /// # Errors
    /// If the value is no array of integers or one of them does not fit.
    pub fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>> {
        self.typed(key, "array of u32", integers)
    }

    /// Adds a key read from a file.
    pub(crate) fn insert(&mut self, key: &str, value: Value) -> Result<()> {
        match self.values.entry(key.to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert(value);
                Ok(())
            }
            Entry::Occupied(_) => Err(GgufError::DuplicateKey { key: key.into() }),
        }
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let mistyped = || GgufError::MistypedKey { key: key.into(), expected, found: describe(value) };
        convert(value).map(Some).ok_or_else(mistyped)
    }
}

/// The array's integers as `T`, if every one fits.
fn integers<T: TryFrom<i128>>(value: &Value) -> Option<Vec<T>> {
    let Value::Array(array) = value else {
        return None;
    };
    array.integers()?.into_iter().map(|value| T::try_from(value).ok()).collect()
}

/// A value for an error message: its type, and a number's value, which tells why it did not fit.
fn describe(value: &Value) -> String {
    match value.as_integer() {
        Some(number) => format!("{} {number}", value.type_name()),
        None => value.type_name().into(),
    }
}
