<?php

declare(strict_types=1);

require __DIR__ . '/vendor/autoload.php';

// Throws an error unless the message is genuine and of these minutes.
function verify(string $body, array $headers): void
{
    $secret = getenv('WEBHOOK_SECRET') ?: throw new RuntimeException("WEBHOOK_SECRET must be the webhook's secret, whsec_…");
    (new \StandardWebhooks\Webhook($secret))->verify($body, $headers);
}
