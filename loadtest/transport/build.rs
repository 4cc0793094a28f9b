//! The gRPC service, without a `.proto` file and its compiler.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let echo = Method::builder()
        .name("echo")
        .route_name("Echo")
        .input_type("crate::grpc::Request")
        .output_type("crate::grpc::Answer")
        .codec_path("tonic_prost::ProstCodec")
        .build();
    Builder::new().compile(&[Service::builder().name("Echo").package("bench").method(echo).build()]);
    println!("cargo::rerun-if-changed=build.rs");
}
