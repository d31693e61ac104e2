//! tensor_map
