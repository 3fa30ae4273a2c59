package main

import (
	"context"

	"github.com/open-telemetry/opentelemetry-collector-contrib/exporter/opensearchexporter"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
)

// queuedConfig has the settings of the contrib exporter, and the queue that its later versions have.
type queuedConfig struct {
	Contrib opensearchexporter.Config  `mapstructure:",squash"`
	Queue   exporterhelper.QueueConfig `mapstructure:"sending_queue"`
}

// newQueuedFactory puts the collector's own queue before the contrib exporter, which comes without one in this version.
// Nothing else is ours: the exporter is created by its own factory, and it tells by itself which errors are permanent.
func newQueuedFactory(contrib exporter.Factory) exporter.Factory {
	defaults := func() component.Config {
		return &queuedConfig{
			Contrib: *contrib.CreateDefaultConfig().(*opensearchexporter.Config),
			Queue:   exporterhelper.NewDefaultQueueConfig(),
		}
	}
	create := func(ctx context.Context, set exporter.Settings, cfg component.Config) (exporter.Logs, error) {
		config := cfg.(*queuedConfig)
		inner := set
		inner.ID = component.NewID(contrib.Type())
		to, err := contrib.CreateLogs(ctx, inner, &config.Contrib)
		if err != nil {
			return nil, err
		}
		return exporterhelper.NewLogs(ctx, set, cfg, to.ConsumeLogs,
			exporterhelper.WithStart(to.Start),
			exporterhelper.WithShutdown(to.Shutdown),
			exporterhelper.WithCapabilities(consumer.Capabilities{MutatesData: true}),
			exporterhelper.WithTimeout(exporterhelper.TimeoutConfig{}), // the contrib exporter has its own
			exporterhelper.WithQueue(config.Queue))
	}
	return exporter.NewFactory(component.MustNewType("queued_opensearch"), defaults,
		exporter.WithLogs(create, component.StabilityLevelDevelopment))
}
