use super::parse;

/// Parsing what is printed gives the same tree.
fn round_trip(text: &str) {
    let module = parse(text).unwrap();
    let printed = module.to_string();
    match parse(&printed) {
        Ok(again) => assert_eq!(module, again, "{printed}"),
        Err(error) => panic!("{error}\n{printed}"),
    }
}

#[test]
fn a_kernel_round_trips() {
    round_trip(
        ".version 9.0\n.target sm_90a\n.address_size 64\n\n.visible .entry k(\n\t.param .u64 k_param_0\n)\n.maxntid 128, 1, 1\n{\n\t.reg .b64 %rd<3>;\n\n\
         \t.loc 1 3 5\n\tld.param.u64 \t%rd1, [k_param_0];\n\t@!%p1 st.global.f32 [%rd1+-4], 0f3F800000;\n\tret;\n}\n\t.file 1 \"k.cu\"\n",
    );
}
