package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configretry"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

// Config has the settings that every exporter of the collector has: its queue (in memory or in a storage), its batches
// and its retries are the collector's own code.
type Config struct {
	Endpoint string                                                   `mapstructure:"endpoint"`
	Timeout  exporterhelper.TimeoutConfig                             `mapstructure:",squash"`
	Retry    configretry.BackOffConfig                                `mapstructure:"retry_on_failure"`
	Queue    configoptional.Optional[exporterhelper.QueueBatchConfig] `mapstructure:"sending_queue"`
}

type action struct {
	Create struct {
		Index string `json:"_index"`
		ID    string `json:"_id,omitempty"`
	} `json:"create"`
}

type pusher struct {
	url    string
	client *http.Client
}

func newFactory() exporter.Factory {
	defaults := func() component.Config {
		return &Config{
			Timeout: exporterhelper.NewDefaultTimeoutConfig(),
			Retry:   configretry.NewDefaultBackOffConfig(),
			Queue:   configoptional.Some(exporterhelper.NewDefaultQueueConfig()),
		}
	}
	return exporter.NewFactory(component.MustNewType("opensearch"), defaults,
		exporter.WithLogs(newExporter, component.StabilityLevelDevelopment))
}

func newExporter(ctx context.Context, set exporter.Settings, cfg component.Config) (exporter.Logs, error) {
	config := cfg.(*Config)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 16
	to := pusher{
		url:    config.Endpoint + "/_bulk?filter_path=errors,items.*.status",
		client: &http.Client{Transport: transport},
	}
	return exporterhelper.NewLogs(ctx, set, cfg, to.push,
		exporterhelper.WithCapabilities(consumer.Capabilities{MutatesData: false}),
		exporterhelper.WithTimeout(config.Timeout),
		exporterhelper.WithRetry(config.Retry),
		exporterhelper.WithQueue(config.Queue))
}

// push sends one batch. An error of the connection or a status that may pass is tried again by the collector.
func (to pusher) push(ctx context.Context, logs plog.Logs) error {
	body, err := bulk(logs)
	if err != nil {
		return consumererror.NewPermanent(err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to.url, body)
	if err != nil {
		return consumererror.NewPermanent(err)
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	response, err := to.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the bulk was answered with %d", response.StatusCode)
	}
	if !bytes.Contains(answer, []byte(`"errors":false`)) {
		return consumererror.NewPermanent(fmt.Errorf("the sink refused events: %.200s", answer))
	}
	return nil
}

// bulk writes the records as documents of the same form as the other candidates'.
func bulk(logs plog.Logs) (*bytes.Buffer, error) {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	now := time.Now().UTC()
	received := now.Format(time.RFC3339Nano)
	var line action
	line.Create.Index = "events_bench_" + now.Format("2006-01")
	for _, resource := range logs.ResourceLogs().All() {
		sender := resource.Resource().Attributes()
		for _, scope := range resource.ScopeLogs().All() {
			for _, record := range scope.LogRecords().All() {
				document := document(sender, record, received)
				line.Create.ID = ""
				if id, found := record.Attributes().Get("log_id"); found {
					line.Create.ID = id.Str()
				}
				if err := encoder.Encode(line); err != nil {
					return nil, err
				}
				if err := encoder.Encode(document); err != nil {
					return nil, err
				}
			}
		}
	}
	return &body, nil
}

func document(sender pcommon.Map, record plog.LogRecord, received string) map[string]any {
	document := make(map[string]any, sender.Len()+record.Attributes().Len()+3)
	for name, value := range sender.All() {
		document[name] = value.AsRaw()
	}
	for name, value := range record.Attributes().All() {
		document[name] = value.AsRaw()
	}
	document["@timestamp"] = record.Timestamp().AsTime().Format(time.RFC3339Nano)
	document["received_at"] = received
	document["event_info"] = record.Body().AsRaw()
	return document
}
