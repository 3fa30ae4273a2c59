"""The heart: admission, channel, delivery, settlement, redelivery. Knows no HTTP and no OpenSearch."""
