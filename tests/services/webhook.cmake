# Alerts, against a fake receiver.
sluice_test(NAME services_webhook_test
  SRCS webhook_test.cc
  DEPS sluice_webhook sluice_fake_http fmt::fmt nlohmann_json::nlohmann_json)
