sluice_test(NAME services_qos_test
  SRCS qos_records_test.cc
  DEPS sluice_qos_records sluice_test_support)
