use super::*;
use serde_json::json;

fn layer(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn a_later_layer_wins_and_the_preset_gives_the_rest() {
    let file = layer(json!({ "preset": "minimind3-64m", "batch-size": 4, "seed": 7 }));
    let flags = layer(json!({ "batch-size": 8 }));
    let options = Options::resolve(&[file, flags]).unwrap();
    assert_eq!((options.batch_size, options.seed, options.max_seq_len), (8, 7, 340));
    assert_eq!(options.model(6400).unwrap().hidden_size, 768);
}

#[test]
fn bad_settings_are_named() {
    let error = |value| Options::resolve(&[layer(value)]).unwrap_err().to_string();
    assert!(error(json!({ "batchsize": 1 })).contains("`batchsize`"));
    assert!(error(json!({ "batch_size": 1 })).contains("did you mean `batch-size`?"));
    assert!(error(json!({ "preset": "huge" })).contains("`huge`"));
    assert!(error(json!({ "device": "tpu" })).contains("`tpu`"));
    assert!(error(json!({ "dtype": "bfloat16" })).contains("not supported on the CPU"));
    assert!(error(json!({ "accumulation-steps": 0 })).contains("accumulation-steps must be at least 1"));
    assert!(error(json!({ "dropout": 1.5 })).contains("dropout is 1.5"));
    assert!(error(json!({ "use-moe": 2 })).contains("use-moe is 2"));
    assert!(error(json!({ "rope-theta": 1.0 })).contains("rope-theta is 1"));
    assert!(error(json!({ "rope-theta": 1e4, "from-weight": "run" })).contains("rope-theta is that of the weights in run"));
    let odd = Options::resolve(&[layer(json!({ "hidden-size": 100, "num-attention-heads": 8 }))]).unwrap();
    assert!(odd.model(100).unwrap_err().to_string().contains("must divide hidden-size 100"));
}

#[test]
fn a_resumed_run_keeps_what_it_computes() {
    let saved = Options::recipe(Preset::Tiny);
    let same = Options::resolve_resumed(&saved, &[layer(json!({ "keep": 5, "from-resume": 1, "seed": 42 }))]).unwrap();
    assert_eq!(same.keep, 5);
    let error = Options::resolve_resumed(&saved, &[layer(json!({ "learning-rate": 1.0 }))]).unwrap_err().to_string();
    assert!(error.contains("learning-rate 0.004"), "{error}");
}

#[test]
fn published_sizes_can_be_reached_by_flags() {
    let options = Options::resolve(&[layer(json!({ "preset": "minimind2-26m", "hidden-size": 640, "use-moe": 1 }))]).unwrap();
    assert_eq!(options.model(6400).unwrap(), Preset::MiniMind2Moe.config(6400));
}

#[test]
fn one_file_needs_no_list() {
    let options = Options::resolve(&[layer(json!({ "data-path": "corpus.jsonl" }))]).unwrap();
    assert_eq!(options.data_path, [PathBuf::from("corpus.jsonl")]);
}

#[test]
fn positions_and_the_base_of_rotation_can_be_set() {
    let changes = json!({ "rope-theta": 1e4, "max-position-embeddings": 512 });
    for preset in ["tiny", "mla-26m"] {
        let config = Options::resolve(&[layer(json!({ "preset": preset })), layer(changes.clone())]).unwrap().model(300).unwrap();
        assert_eq!((config.rope_theta, config.max_position_embeddings), (1e4, 512));
    }
}
