package org.forebay.testbed;

import java.util.Map;
import org.opensearch.ingest.AbstractProcessor;
import org.opensearch.ingest.ConfigurationUtils;
import org.opensearch.ingest.IngestDocument;
import org.opensearch.ingest.Processor;
import org.opensearch.plugins.IngestPlugin;
import org.opensearch.plugins.Plugin;

/** What `set`, `fail` and `drop` of OpenSearch's module ingest-common do, each for documents with a value in a field. */
public class TestProcessors extends Plugin implements IngestPlugin {
    @Override
    public Map<String, Processor.Factory> getProcessors(Processor.Parameters parameters) {
        return Map.of("mark", factory("mark"), "fail_if", factory("fail_if"), "drop_if", factory("drop_if"));
    }

    private static Processor.Factory factory(String type) {
        return (registry, tag, description, config) -> new ForValue(
            type,
            tag,
            description,
            ConfigurationUtils.readStringProperty(type, tag, config, "field"),
            ConfigurationUtils.readStringProperty(type, tag, config, "value")
        );
    }

    private static class ForValue extends AbstractProcessor {
        private final String type;
        private final String field;
        private final String value;

        ForValue(String type, String tag, String description, String field, String value) {
            super(tag, description);
            this.type = type;
            this.field = field;
            this.value = value;
        }

        @Override
        public IngestDocument execute(IngestDocument document) {
            if (type.equals("mark")) {
                document.setFieldValue(field, value);
                return document;
            }
            if (!document.hasField(field) || !value.equals(document.getFieldValue(field, String.class))) {
                return document;
            }
            if (type.equals("drop_if")) {
                return null;
            }
            throw new IllegalStateException("the pipeline fails for " + value);
        }

        @Override
        public String getType() {
            return type;
        }
    }
}
