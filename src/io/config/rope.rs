//! The rotary settings of a `config.json`: the base, and YaRN.

use serde_json::{Map, Value};

use super::Fields;
use crate::Result;
use crate::model::Family;
use crate::ops::rope::{RopeScaling, Yarn, YarnForm};

/// The settings of MiniMind's YaRN in the paper's form.
const YARN: Yarn = Yarn { attention_factor: Some(1.0), ..Yarn::new(YarnForm::MiniMind, 16.0, 2048) };

impl Fields<'_> {
    /// An object of rotary settings, under its older name or that of transformers 5.
    fn rope_object(&self, name: &str) -> Result<Option<&Map<String, Value>>> {
        let object =
            self.get(name).map(|v| v.as_object().ok_or_else(|| self.error(format!("`{name}` is {v}, expected an object"))));
        let object = object.transpose()?;
        // Settings by kind of layer are objects themselves; what rotates only a part of a head is another model.
        let strange = |(field, value): &(&String, &Value)| {
            value.is_object() || (*field == "partial_rotary_factor" && value.as_f64() != Some(1.0) && !value.is_null())
        };
        match object.and_then(|object| object.iter().find(strange)) {
            Some((field, value)) => Err(self.error(format!("`{name}.{field}` is {value}, which is not supported"))),
            None => Ok(object),
        }
    }

    /// The rotary base: at the top level, or among the rotary settings.
    pub(super) fn rope_theta(&self, default: f64) -> Result<f64> {
        let mut theta = self.f64("rope_theta")?;
        for name in ["rope_parameters", "rope_scaling"] {
            let Some(value) = self.rope_object(name)?.and_then(|object| object.get("rope_theta")).filter(|v| !v.is_null()) else {
                continue;
            };
            let nested = value.as_f64().ok_or_else(|| self.error(format!("`{name}.rope_theta` is {value}, expected a number")))?;
            if let Some(other) = theta.replace(nested).filter(|other| *other != nested) {
                return Err(
                    self.error(format!("`{name}.rope_theta` is {nested}, but `rope_theta` is {other} elsewhere in the file"))
                );
            }
        }
        Ok(theta.unwrap_or(default))
    }

    pub(super) fn rope_scaling(&self, family: Family, own_form: bool) -> Result<RopeScaling> {
        let object = match self.rope_object("rope_scaling")? {
            Some(object) => Some(object),
            None => self.rope_object("rope_parameters")?,
        };
        let typed = object.and_then(|object| object.get("rope_type").or_else(|| object.get("type"))).filter(|v| !v.is_null());
        let kind = match (typed, object) {
            (Some(kind), _) => kind.as_str().ok_or_else(|| self.error(format!("`rope_scaling.type` is {kind}, expected text")))?,
            // MiniMind itself does not look at the type.
            (None, Some(object)) if object.contains_key("factor") => {
                if own_form {
                    "yarn"
                } else {
                    "(none)"
                }
            }
            _ => "default",
        };
        match (kind, object) {
            ("default", _) | (_, None) if own_form && self.bool("inference_rope_scaling")? == Some(true) => {
                match family {
                    Family::Qwen3 => Ok(RopeScaling::Yarn(YARN)),
                    _ => Err(self.error(
                        "`inference_rope_scaling` is true, but there is no `rope_scaling`, which tells MiniMind-2's two forms of YaRN apart",
                    )),
                }
            }
            ("default", _) | (_, None) => Ok(RopeScaling::Default),
            ("yarn", Some(object)) if own_form => self.yarn(object),
            (other, _) => Err(self.error(format!("rotary scaling of the type `{other}` is not supported for this model type"))),
        }
    }

    /// MiniMind's YaRN: `attention_factor` tells its two forms apart.
    fn yarn(&self, value: &Map<String, Value>) -> Result<RopeScaling> {
        if self.bool("inference_rope_scaling")? == Some(false) {
            return Ok(RopeScaling::Default);
        }
        let number = |name: &str, default: f64| match value.get(name) {
            None | Some(Value::Null) => Ok(default),
            Some(v) => v.as_f64().ok_or_else(|| self.error(format!("`rope_scaling.{name}` is {v}, expected a number"))),
        };
        let (form, fast, factor) = match value.get("attention_factor") {
            None | Some(Value::Null) => (YarnForm::MiniMindLinearBeta, 4.0, 4.0),
            Some(_) => (YarnForm::MiniMind, YARN.beta_fast, YARN.factor),
        };
        Ok(RopeScaling::Yarn(Yarn {
            form,
            factor: number("factor", factor)?,
            original_max_position_embeddings: number(
                "original_max_position_embeddings",
                YARN.original_max_position_embeddings as f64,
            )? as usize,
            beta_fast: number("beta_fast", fast)?,
            beta_slow: number("beta_slow", YARN.beta_slow)?,
            attention_factor: Some(number("attention_factor", 1.0)?),
            ..YARN
        }))
    }
}
