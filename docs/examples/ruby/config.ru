# Takes in the messages of Plausible Webhooks: each once, into a folder.

require "fileutils"
require "json"
require "securerandom"

require_relative "verify"

class Receiver
  LARGEST_BODY = 4 * 1024 * 1024
  ID_FORM = /\A[A-Za-z0-9_-]{1,100}\z/ # the id becomes a file's name
  SIGNED = %w[webhook-id webhook-timestamp webhook-signature].freeze

  def initialize(inbox)
    @inbox = inbox
    FileUtils.mkdir_p(inbox, mode: 0o700)
  end

  def call(env)
    return answer(404, "POST to /webhooks") unless env["REQUEST_METHOD"] == "POST" && env["PATH_INFO"] == "/webhooks"

    # The bytes as they came: JSON that was parsed and written again has another signature.
    body = env["rack.input"].read(LARGEST_BODY + 1).to_s
    return answer(413, "the body is too large") if body.bytesize > LARGEST_BODY

    headers = SIGNED.to_h { |name| [name, env["HTTP_#{name.upcase.tr("-", "_")}"]] }
    begin
      verify(body, headers)
    rescue StandardError => error
      return answer(401, error.message)
    end
    begin
      is_new = keep(headers["webhook-id"], body)
    rescue StandardError => error
      warn error.message
      return answer(500, "the message cannot be kept")
    end
    Thread.new { work(JSON.parse(body)) } if is_new
    [204, {}, []]
  end

  private

  def answer(status, text)
    [status, { "content-type" => "text/plain" }, [text]]
  end

  # Stores a message, and tells whether it is new. A name is linked once, whoever else tries at the
  # same time, and the file behind it is complete.
  def keep(id, body)
    raise ArgumentError, "the webhook-id is malformed" unless ID_FORM.match?(id)

    part = File.join(@inbox, "part-#{SecureRandom.uuid}")
    File.binwrite(part, body)
    File.link(part, File.join(@inbox, "#{id}.json"))
    true
  rescue Errno::EEXIST
    false
  ensure
    FileUtils.rm_f(part) if part
  end

  # Here yours begins. The sender does not wait for it.
  def work(message)
    return message["data"]["messages"].each { |one| work(one) } if message["type"] == "batch"

    warn "#{message["type"]} #{message["data"]["id"]}"
  end
end

run Receiver.new(ENV.fetch("INBOX", "inbox"))
