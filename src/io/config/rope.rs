//! The rotary settings of a `config.json`: the base, and how frequencies are stretched.
//!
//! Transformers 4 has `rope_theta` and an object `rope_scaling`, transformers 5 one object `rope_parameters` with the base in it; both
//! are read, and written.

use serde_json::{Value, json};

use super::class::Class;
use super::fields::Fields;
use crate::Result;
use crate::model::ModelConfig;
use crate::ops::rope::{Llama3, RopeScaling, Yarn, YarnForm};

/// The objects of rotary settings, and what precedes the names of their fields. Where both hold any, the library takes the first.
const OBJECTS: [(&str, &str); 2] = [("rope_scaling", "rope_scaling."), ("rope_parameters", "rope_parameters.")];

/// What every object of rotary settings may have. A part of a head that is rotated must be all of it.
const COMMON: [&str; 4] = ["type", "rope_type", "rope_theta", "partial_rotary_factor"];

const LINEAR: [&str; 1] = ["factor"];
const LLAMA3: [&str; 4] = ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"];
const YARN: [&str; 8] = [
    "factor",
    "original_max_position_embeddings",
    "beta_fast",
    "beta_slow",
    "truncate",
    "attention_factor",
    "mscale",
    "mscale_all_dim",
];
const MINIMIND_YARN: [&str; 5] = ["factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor"];

/// MiniMind's own YaRN where its file has nothing but the switch.
const MINIMIND: Yarn = Yarn { attention_factor: Some(1.0), ..Yarn::new(YarnForm::MiniMind, 16.0, 2048) };

/// The rotary base, and how frequencies are stretched.
pub(super) fn read(fields: &Fields, class: Class, max_positions: usize) -> Result<(f64, RopeScaling)> {
    let mut objects = Vec::new();
    for (name, prefix) in OBJECTS {
        objects.extend(fields.object(name, prefix)?);
    }
    let theta = theta(fields, &objects)?.unwrap_or(class.defaults().rope_theta);
    let scaling = match (class.own_form(), objects.as_slice()) {
        (true, objects) => minimind(fields, class, objects.first())?,
        (false, []) => RopeScaling::Default,
        (false, [only]) => public(fields, only, max_positions)?,
        (false, [first, second, ..]) => {
            let scaling = public(fields, first, max_positions)?;
            if scaling != public(fields, second, max_positions)? {
                return Err(fields.error("`rope_scaling` and `rope_parameters` contradict each other"));
            }
            scaling
        }
    };
    Ok((theta, scaling))
}

/// The rotary base: at the top level, or among the rotary settings.
fn theta(fields: &Fields, objects: &[Fields]) -> Result<Option<f64>> {
    let mut theta: Option<f64> = None;
    for place in [fields].into_iter().chain(objects) {
        let Some(found) = place.f64("rope_theta")? else { continue };
        if let Some(other) = theta.replace(found).filter(|other| *other != found) {
            return Err(fields.error(format!("`rope_theta` is {other} in one place of the file and {found} in another")));
        }
    }
    Ok(theta)
}

/// An error unless the object holds nothing but settings of these names, which `kind` has.
fn expect_known(object: &Fields, kind: &str, known: &[&str]) -> Result<()> {
    if object.f64("partial_rotary_factor")?.is_some_and(|part| part != 1.0) {
        return Err(object.unsupported("partial_rotary_factor", "1, whole heads"));
    }
    match object.names().find(|name| !COMMON.contains(name) && !known.contains(name)) {
        Some(name) => Err(object.unsupported(name, &format!("for the type {kind}: {}", [known, &COMMON].concat().join(", ")))),
        None => Ok(()),
    }
}

fn kind<'a>(object: &Fields<'a>) -> Result<Option<&'a str>> {
    let (new, old) = (object.text("rope_type")?, object.text("type")?);
    match (new, old) {
        (Some(a), Some(b)) if a != b => Err(object.error(format!("rotary scaling has the `rope_type` {a} and the `type` {b}"))),
        _ => Ok(new.or(old)),
    }
}

/// The settings of a public class.
fn public(fields: &Fields, object: &Fields, max_positions: usize) -> Result<RopeScaling> {
    let required = |name: &str| object.f64(name)?.ok_or_else(|| object.missing(name));
    // Beside the object, it comes before the one in it.
    let original = || -> Result<usize> {
        let outside = fields.usize("original_max_position_embeddings")?;
        Ok(outside.or(object.usize("original_max_position_embeddings")?).unwrap_or(max_positions))
    };
    match kind(object)? {
        None if object.get("factor").is_some() => {
            Err(object.error("rotary scaling has a `factor`, but neither `rope_type` nor `type`"))
        }
        None | Some("default") => {
            expect_known(object, "default", &[])?;
            Ok(RopeScaling::Default)
        }
        Some("linear") => {
            expect_known(object, "linear", &LINEAR)?;
            Ok(RopeScaling::Linear { factor: required("factor")? })
        }
        Some("llama3") => {
            expect_known(object, "llama3", &LLAMA3)?;
            Ok(RopeScaling::Llama3(Llama3 {
                factor: required("factor")?,
                low_freq_factor: required("low_freq_factor")?,
                high_freq_factor: required("high_freq_factor")?,
                original_max_position_embeddings: original()?,
            }))
        }
        Some("yarn") => {
            expect_known(object, "yarn", &YARN)?;
            let original = original()?;
            // Null is the ratio of both lengths; a file without it is refused by the library too.
            let factor = match object.is_null("factor") {
                true => max_positions as f64 / original as f64,
                false => required("factor")?,
            };
            // The library takes 0 for none.
            let beta = |name: &str| Ok::<_, crate::Error>(object.nullable_f64(name)?.filter(|&beta| beta != 0.0));
            let paper = Yarn::new(YarnForm::Public, factor, original);
            Ok(RopeScaling::Yarn(Yarn {
                beta_fast: beta("beta_fast")?.unwrap_or(paper.beta_fast),
                beta_slow: beta("beta_slow")?.unwrap_or(paper.beta_slow),
                truncate: object.bool("truncate")?.unwrap_or(paper.truncate),
                attention_factor: object.nullable_f64("attention_factor")?,
                mscale: object.nullable_f64("mscale")?,
                mscale_all_dim: object.nullable_f64("mscale_all_dim")?,
                ..paper
            }))
        }
        Some(_) => {
            let name = if object.get("rope_type").is_some() { "rope_type" } else { "type" };
            Err(object.unsupported(name, "default, linear, llama3, yarn"))
        }
    }
}

/// MiniMind's YaRN: a switch beside the object turns it on, and `attention_factor` tells its two forms apart.
fn minimind(fields: &Fields, class: Class, object: Option<&Fields>) -> Result<RopeScaling> {
    let switch = fields.bool("inference_rope_scaling")?;
    // MiniMind itself does not look at the type.
    let yarn = match object {
        Some(object) => match kind(object)? {
            Some("yarn") => Some(object),
            None if object.get("factor").is_some() => Some(object),
            None | Some("default") => None,
            Some(_) => {
                let name = if object.get("rope_type").is_some() { "rope_type" } else { "type" };
                return Err(object.unsupported(name, "default, yarn in MiniMind's own form"));
            }
        },
        None => None,
    };
    let Some(object) = yarn else {
        return match (switch, class) {
            (Some(true), Class::MiniMind3) => Ok(RopeScaling::Yarn(MINIMIND)),
            (Some(true), _) => Err(fields.error(
                "`inference_rope_scaling` is true, but there is no `rope_scaling`, which tells MiniMind-2's two forms of YaRN apart",
            )),
            _ => Ok(RopeScaling::Default),
        };
    };
    expect_known(object, "yarn in MiniMind's own form", &MINIMIND_YARN)?;
    if switch == Some(false) {
        return Ok(RopeScaling::Default);
    }
    let attention_factor = object.nullable_f64("attention_factor")?;
    let paper = match attention_factor {
        Some(_) => Yarn { attention_factor, ..MINIMIND },
        None => Yarn { form: YarnForm::MiniMindLinearBeta, factor: 4.0, beta_fast: 4.0, attention_factor: None, ..MINIMIND },
    };
    let original = object.usize("original_max_position_embeddings")?;
    Ok(RopeScaling::Yarn(Yarn {
        factor: object.f64("factor")?.unwrap_or(paper.factor),
        original_max_position_embeddings: original.unwrap_or(paper.original_max_position_embeddings),
        beta_fast: object.f64("beta_fast")?.unwrap_or(paper.beta_fast),
        beta_slow: object.f64("beta_slow")?.unwrap_or(paper.beta_slow),
        ..paper
    }))
}

/// Adds the settings under the names of both generations of the library, or in MiniMind's form.
pub(super) fn write(json: &mut Value, class: Class, config: &ModelConfig) {
    let scaling = to_json(config.rope_scaling);
    json["rope_theta"] = config.rope_theta.into();
    if class.own_form() {
        json["inference_rope_scaling"] = (!scaling.is_null()).into();
    } else {
        let mut parameters = if scaling.is_null() { json!({ "rope_type": "default" }) } else { scaling.clone() };
        parameters["rope_theta"] = config.rope_theta.into();
        json["rope_parameters"] = parameters;
    }
    json["rope_scaling"] = scaling;
}

/// Null where frequencies are not stretched; settings that are left to the reader are left out.
fn to_json(scaling: RopeScaling) -> Value {
    let yarn = match scaling {
        RopeScaling::Default => return Value::Null,
        RopeScaling::Linear { factor } => return json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Llama3(llama3) => {
            return json!({
                "rope_type": "llama3",
                "factor": llama3.factor,
                "low_freq_factor": llama3.low_freq_factor,
                "high_freq_factor": llama3.high_freq_factor,
                "original_max_position_embeddings": llama3.original_max_position_embeddings,
            });
        }
        RopeScaling::Yarn(yarn) => yarn,
    };
    let mut json = json!({
        "type": "yarn",
        "rope_type": "yarn",
        "factor": yarn.factor,
        "original_max_position_embeddings": yarn.original_max_position_embeddings,
        "beta_fast": yarn.beta_fast,
        "beta_slow": yarn.beta_slow,
    });
    // Its presence tells MiniMind's two forms apart.
    let attention_factor = match yarn.form {
        YarnForm::Public => yarn.attention_factor,
        YarnForm::MiniMind => Some(yarn.attention_factor()),
        YarnForm::MiniMindLinearBeta => None,
    };
    let settings = [("attention_factor", attention_factor), ("mscale", yarn.mscale), ("mscale_all_dim", yarn.mscale_all_dim)];
    for (name, value) in settings.into_iter().filter(|(_, value)| value.is_some()) {
        json[name] = value.into();
    }
    if !yarn.truncate {
        json["truncate"] = false.into();
    }
    json
}
