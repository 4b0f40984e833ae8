# The Open Inference Protocol door. Its streams need a server: tests/integration.
sluice_test(NAME services_oip_test
  SRCS oip_codec_test.cc oip_decode_test.cc oip_metadata_test.cc oip_tensor_test.cc
  DEPS sluice_grpc sluice_protos sluice_test_support fmt::fmt)
