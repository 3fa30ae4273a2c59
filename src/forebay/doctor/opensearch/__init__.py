"""Checks of OpenSearch: `asking` sends all questions at once, every other module judges the answers to some of them."""
