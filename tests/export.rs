//! Model directories in and out: other types, several files, the same model.

use std::fs;
use std::path::Path;

use ferromind::data::Tokenizer;
use ferromind::io::{FloatType, config_to_json, export_model, load_model, load_model_as, save_weights};
use ferromind::model::{Init, Model, ModelConfig, MoeConfig};
use ferromind::tensor::DType;
use serde_json::Value;
use tempfile::TempDir;

/// Models of every line, tiny.
fn configs() -> Vec<ModelConfig> {
    let small = |config: ModelConfig| ModelConfig {
        intermediate_size: 48,
        moe: config.moe.clone().map(|moe| MoeConfig { intermediate_size: 48, ..moe }),
        max_position_embeddings: 64,
        ..config
    };
    let configs = [
        ModelConfig::minimind2(32, 2, 300),
        ModelConfig::minimind2(32, 2, 300).with_experts(),
        ModelConfig { tie_word_embeddings: false, ..ModelConfig::minimind3(32, 2, 300) },
        ModelConfig::minimind3(32, 2, 300).with_experts(),
    ];
    configs.into_iter().map(small).collect()
}

/// A run directory, as far as a reader of models goes.
fn write(dir: &Path, model: &Model) {
    save_weights(dir, model.params().layout(), model.params().flat().unwrap(), FloatType::F32, None).unwrap();
    fs::write(dir.join("config.json"), config_to_json(model.config()).to_string()).unwrap();
    fs::write(dir.join("generation_config.json"), "{\"temperature\": 0.5}").unwrap();
    Tokenizer::bytes().unwrap().save(dir).unwrap();
}

fn values(model: &Model) -> &[f32] {
    model.params().flat().unwrap()
}

#[test]
fn a_model_survives_every_way_out_and_in() {
    for config in configs() {
        let dir = TempDir::new().unwrap();
        let run = dir.path().join("run");
        fs::create_dir(&run).unwrap();
        let model = Model::random(config.clone(), Init::Normal, 0.02, 3).unwrap();
        write(&run, &model);
        for (i, (float, shard)) in
            [(FloatType::F32, None), (FloatType::F32, Some(9000)), (FloatType::BF16, Some(9000)), (FloatType::F16, None)]
                .into_iter()
                .enumerate()
        {
            let out = dir.path().join(format!("out-{i}"));
            export_model(&run, &out, float, shard).unwrap();
            let back = load_model(&out).unwrap();
            assert_eq!(back.config(), model.config());
            let rounded: Vec<f32> = values(&model)
                .iter()
                .map(|&x| match float {
                    FloatType::F32 => x,
                    FloatType::BF16 => half::bf16::from_f32(x).to_f32(),
                    FloatType::F16 => half::f16::from_f32(x).to_f32(),
                })
                .collect();
            assert!(values(&back) == rounded, "{:?} {float} {shard:?}", config.family);
            assert_eq!(out.join("model.safetensors.index.json").exists(), shard.is_some());
            let json: Value = serde_json::from_str(&fs::read_to_string(out.join("config.json")).unwrap()).unwrap();
            assert_eq!(json["torch_dtype"], float.torch_name());
            for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
                assert_eq!(fs::read(run.join(name)).unwrap(), fs::read(out.join(name)).unwrap(), "{name}");
            }
            // What was written in that type loses nothing more.
            let again = dir.path().join(format!("again-{i}"));
            export_model(&out, &again, float, None).unwrap();
            assert!(values(&load_model(&again).unwrap()) == rounded);
        }
    }
}

#[test]
fn weights_that_do_not_fit_the_configuration_are_named() {
    use safetensors::tensor::{Dtype, TensorView};
    let dir = TempDir::new().unwrap();
    let model = Model::random(configs().remove(0), Init::Normal, 0.02, 3).unwrap();
    write(dir.path(), &model);
    let path = dir.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let norm = "model.layers.1.input_layernorm.weight";
    type Change<'a> = &'a dyn Fn(&str, TensorView<'static>) -> Vec<(String, TensorView<'static>)>;
    let fails = |change: Change, phrases: &[&str]| {
        let bytes: &'static [u8] = bytes.clone().leak();
        let tensors = safetensors::SafeTensors::deserialize(bytes).unwrap();
        let changed = tensors.tensors().into_iter().flat_map(|(name, view)| match name == norm {
            true => change(&name, view),
            false => vec![(name, view)],
        });
        safetensors::serialize_to_file(changed, None, &path).unwrap();
        let error = load_model(dir.path()).unwrap_err().to_string();
        assert!(error.contains("model.safetensors") && phrases.iter().all(|phrase| error.contains(phrase)), "{phrases:?}: {error}");
    };
    fails(&|_, _| vec![], &[norm, "missing"]);
    let view = |dtype, shape: &[usize], bytes: usize| TensorView::new(dtype, shape.to_vec(), vec![0; bytes].leak()).unwrap();
    fails(&|name, _| vec![(name.into(), view(Dtype::F32, &[31], 124))], &[norm, "[31], expected [32]"]);
    fails(&|name, _| vec![(name.into(), view(Dtype::F64, &[32], 256))], &[norm, "F64", "F32, BF16 and F16"]);
    fails(&|name, _| vec![(name.into(), view(Dtype::F8_E4M3, &[32], 32))], &[norm, "F8_E4M3", "F32, BF16 and F16"]);
    fails(
        &|name, as_it_is| vec![(name.into(), as_it_is), ("model.layers.1.extra".into(), view(Dtype::F32, &[1], 4))],
        &["no place for the tensor `model.layers.1.extra`"],
    );
}

#[test]
fn weights_held_in_bf16_are_those_rounded_afterwards() {
    for config in configs() {
        let dir = TempDir::new().unwrap();
        let model = Model::random(config, Init::Normal, 0.02, 3).unwrap();
        write(dir.path(), &model);
        let bits = |model: &Model| model.params().flat::<half::bf16>().unwrap().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let held = load_model_as(dir.path(), DType::BF16).unwrap();
        assert!(bits(&held) == bits(&model.to_bf16().unwrap()));
        let error = load_model_as(dir.path(), DType::I32).unwrap_err().to_string();
        assert!(error.contains("i32") && error.contains("f32 and bf16"), "{error}");
    }
}

#[test]
fn what_is_there_is_not_written_over() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), &Model::random(configs().remove(0), Init::Normal, 0.02, 3).unwrap());
    let error = export_model(dir.path(), dir.path(), FloatType::F16, None).unwrap_err().to_string();
    assert!(error.contains("model.safetensors is there already"), "{error}");
    assert!(load_model(dir.path()).is_ok());
}
